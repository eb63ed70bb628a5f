"""Clips to frames: which moments are taken, and how they come out of a file that may be hours long or broken.

Moments are time stamps, never frame numbers: a file's own frame count lies, and the rate may vary. What is taken at a
moment is the frame that a screen shows then, the last one that began before it. Small gaps between two moments are
decoded through; over large ones the file is sought to the key frame before, so an hour costs as much as a minute, and
no more frames are held than were asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
from annotated_types import Ge, Le
from PIL import Image

from vlm.contracts.errors import InputError
from vlm.contracts.ranges import PositiveFloat
from vlm.contracts.sample import Medium
from vlm.data.clip_files import ClipError, ClipFile
from vlm.data.pictures import decode

MOST = 64  # frames of one clip
FrameCount = Annotated[int, Ge(1), Le(MOST)]  # for settings: the configuration check refuses 0 and 65
Sampling = Literal["uniform", "per_second", "first"]
LEAST = 2  # frames; one moment is a picture, and never stands for a clip
SLACK = 1.0  # seconds by which a file may end earlier than it says before that is told


@dataclass(frozen=True)
class Clip:
    """What was taken of a clip. frames: uint8 [H, W, 3] each, or what `keep` made of them.   seconds: of each, rising.

    fps: frames a second of the file by its own word, None if it has none.   repaired: what was wrong with it, by name:
    "frames_damaged" = some did not decode, "tail_missing" = it ends earlier than it says.
    form, colours: of container and pixels, as libav calls them; "" of what was no file.
    """

    frames: list[Any]
    seconds: list[float]
    fps: float | None = None
    repaired: tuple[str, ...] = ()
    form: str = ""
    colours: str = ""


def choose(count: int, most: FrameCount) -> list[int]:
    """Places of at most `most` of `count` frames, evenly spread: the middle of each of `most` equal stretches."""
    if count <= most:
        return list(range(count))
    return [int((number + 0.5) * count / most) for number in range(most)]


def moments(
    begin: float, end: float, most: FrameCount, sampling: Sampling = "uniform", per_second: PositiveFloat = 1.0
) -> list[float]:
    """Seconds between begin and end, rising.

    sampling: "uniform" = the middles of `most` equal stretches. "per_second" = from the beginning at that rate; of a
    clip that gives more than `most`, uniform over all of it. "first" = at that rate, and what comes behind the first
    `most` is never seen: how fVLM cut its training clips, whose use then spread the frames over the whole.
    """
    length = max(0.0, end - begin)
    if sampling != "uniform":
        count = max(1, int(np.ceil(length * per_second - 1e-6)))
        if count <= most or sampling == "first":
            return [begin + number / per_second for number in range(min(count, most))]
    return [begin + (number + 0.5) * length / most for number in range(most)]


def decode_clip(
    source: bytes | os.PathLike[str] | str | BinaryIO,
    name: str,
    most: FrameCount,
    sampling: Sampling = "uniform",
    per_second: PositiveFloat = 1.0,
    *,
    longest: int | None = None,
    least: tuple[int, int] | None = None,
    keep: Callable[[np.ndarray], Any] | None = None,
) -> Clip:
    """At most `most` frames of the file of a clip, upright, as uint8 [H, W, 3], with their seconds.

    source: the encoded file, its path, or a stream that can be sought.   name: for messages.
    sampling, per_second: as in `moments`; moments with one frame on the screen give it once.
    longest: frames whose longer side exceeds it shrink to it.   least: (height, width) that the caller will shrink to;
    larger frames are shrunk to twice that.   keep: made of each frame as it comes, so that pixels need not be held.
    Raises: ClipError with reason video_unreadable, video_short (under two frames where two were asked for),
    media_huge or media_missing; InputError for a number of frames out of range.
    """
    if not 1 <= most <= MOST:
        raise InputError(f"{name}: {most} frames are asked for; between 1 and {MOST} can be taken of a clip")
    with ClipFile(source, name) as file:
        begin, end = file.span
        wanted = moments(begin, end, most, sampling, per_second)
        taken, seconds = _taken(file, wanted, longest, least, keep)
        reached = end if file.ended_at is None else file.ended_at
        missing = reached + SLACK < wanted[-1]
        if missing:  # spread over what is really there
            wanted = moments(begin, reached, most, sampling, per_second)
            taken, seconds = _taken(file, wanted, longest, least, keep)
        if not taken:
            raise ClipError("video_unreadable", f"{name}: not one frame decodes")
        if len(taken) < min(LEAST, most):
            raise ClipError(
                "video_short", f"{name}: {len(taken)} frame in {max(0.0, end - begin):.2f} s; two make a clip"
            )
        told = [*(["frames_damaged"] if file.damaged else []), *(["tail_missing"] if missing else [])]
        return Clip(
            taken, [round(second - begin, 6) for second in seconds], file.fps, tuple(told), file.form, file.colours
        )


def frames_of(
    medium: Medium,
    name: str,
    most: FrameCount,
    *,
    least: tuple[int, int] | None = None,
    sampling: Sampling = "uniform",
    per_second: PositiveFloat = 1.0,
) -> Clip:
    """At most `most` frames of a medium of any type as uint8 [H, W, 3] (of pictures with one grey channel [H, W]).

    A picture is one frame at second 0. Of stored frames evenly spread ones are taken, by place; `sampling` and
    `per_second` are for files. least: as in `pictures.decode`.
    Raises: PictureError (ClipError of a file) with its reason.
    """
    if medium.type == "image":
        return Clip([decode(medium.data, name, least=least)], [0.0])
    if medium.type == "video":
        return decode_clip(medium.data, name, most, sampling, per_second, least=least)
    places = choose(len(medium.frames), most)
    shown = [decode(medium.frames[place], f"{name} frame {place}", least=least) for place in places]
    return Clip(shown, [medium.seconds[place] for place in places])


def still(medium: Medium, name: str) -> bytes:
    """The file of one picture that stands for a medium on a page; of a clip it is the middle frame.

    Raises: ClipError for the file of a clip that cannot be read.
    """
    if medium.type == "image":
        return medium.data
    if medium.type == "frames":
        return medium.frames[len(medium.frames) // 2]
    buffer = BytesIO()
    Image.fromarray(decode_clip(medium.data, name, 1).frames[0]).save(buffer, "PNG")
    return buffer.getvalue()


def _taken(
    file: ClipFile,
    wanted: Sequence[float],
    longest: int | None,
    least: tuple[int, int] | None,
    keep: Callable[[np.ndarray], Any] | None,
) -> tuple[list[Any], list[float]]:
    taken, seconds = [], []
    for frame, at in file.shown(wanted):
        pixels = file.pixels(frame, longest, least)
        taken.append(pixels if keep is None else keep(pixels))
        seconds.append(at)
    return taken, seconds
