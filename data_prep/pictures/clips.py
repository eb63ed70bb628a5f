"""A clip of a source -> the members that are stored, and what is known about it."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from pathlib import PurePosixPath
from typing import Annotated, Any, BinaryIO, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Le
from PIL import Image

from data_prep.pictures.media import MEMBERS, PictureRules, Stored, check_shape, encode, reread, store
from data_prep.rows import LARGEST_FILE, Clip, Frames, Picture, Unfit
from vlm.contracts.ranges import PositiveFloat, PositiveInt
from vlm.contracts.settings import STRICT
from vlm.data.canonical import MediumRecord
from vlm.data.clip_files import ClipFile
from vlm.data.clips import LEAST, MOST, ClipError, decode_clip, moments
from vlm.data.pictures import decode, to_array

KEPT_AS = ("mp4", "webm", "mkv", "avi", "ts", "mov")  # endings that a stored file may have
SEEN = 3  # frames of a file that is kept as it is: it decodes, and one is its middle


@dataclass(frozen=True)
class ClipRules:
    """How a set's clips are stored. Shape, blankness and format of their frames follow the rules for pictures.

    store: "frames" = pictures of some moments, "mp4" = the file as it is, in whatever container.
    frames_per_second: that are taken of a clip, up to max_frames.   sampling: of a longer clip "uniform" spreads them
    over all of it; "first" keeps its beginning only, as fVLM's training clips were cut.
    max_side: longer side of a frame; larger ones shrink.   quality: of JPEG.
    """

    __pydantic_config__: ClassVar = STRICT
    store: Literal["frames", "mp4"]
    frames_per_second: PositiveFloat
    max_frames: Annotated[int, Ge(LEAST), Le(MOST)]
    sampling: Literal["uniform", "first"]
    max_side: PositiveInt
    quality: PositiveInt


@dataclass(frozen=True)
class StoredClip:
    """A clip ready to be written. files: its frames, or the one file.   seconds, count, fps: as `MediumRecord` has them.

    middle: its middle frame, by which it is compared with pictures and other clips.   repaired: what was mended.
    """

    type: Literal["frames", "video"]
    files: tuple[bytes, ...]
    member: str
    seconds: tuple[float, ...]
    count: int
    fps: float | None
    middle: Stored
    source_mode: str
    source_format: str
    width: int
    height: int
    repaired: tuple[str, ...] = ()

    @property
    def looks(self) -> Stored:
        """What stands for it where pictures are compared."""
        return self.middle

    @property
    def phash(self) -> str:
        return self.middle.phash

    @cached_property
    def sha256(self) -> str:
        """Of the stored bytes of all its files in order."""
        digest = hashlib.sha256()
        for data in self.files:
            digest.update(data)
        return digest.hexdigest()

    @property
    def pixels(self) -> str:
        """What decides on a holdout; equal sources are stored as equal bytes."""
        return self.sha256


def store_clip(clip: Clip, rules: ClipRules, pictures: PictureRules) -> StoredClip:
    """Raises: PictureError or Unfit with the reason, for a clip that cannot be read or that the rules refuse."""
    own = replace(pictures, max_side=rules.max_side, quality=rules.quality, blank=True)
    if isinstance(clip.content, Frames):
        stored = _of_pictures(clip.content, clip.name, rules, own)
    else:
        with BytesIO(clip.content) if isinstance(clip.content, bytes) else clip.content.open() as stream:
            make = _of_file if rules.store == "frames" else _as_it_is
            stored = make(stream, clip.name, rules, own)
    if not pictures.blank and stored.repaired[:1] == (BLANK,):
        raise ClipError("media_blank", f"{clip.name} has one colour only, from its beginning to its end")
    return replace(stored, repaired=tuple(name for name in stored.repaired if name != BLANK))


def middle_of(medium: MediumRecord, files: Sequence[bytes], name: str) -> Stored:
    """What `StoredClip.middle` was when the clip was written. Raises: PictureError if it is damaged."""
    if medium.type == "frames":
        return reread(files[len(files) // 2], name)
    frames = decode_clip(files[0], name, SEEN).frames
    return _as_picture(frames[len(frames) // 2], name)


BLANK = "blank"  # noted in passing, before the rules decide


def _of_file(stream: BinaryIO, name: str, rules: ClipRules, own: PictureRules) -> StoredClip:
    frames = _Frames(name, own)
    sampling = "per_second" if rules.sampling == "uniform" else "first"
    found = decode_clip(
        stream, name, rules.max_frames, sampling, rules.frames_per_second, longest=rules.max_side, keep=frames.encoded
    )
    if len(found.frames) < LEAST:
        told = f"one frame at {rules.frames_per_second:g} a second"
        raise ClipError("video_short", f"{name} gives {told}; two make a clip")
    return frames.stored(found.frames, found.seconds, found.fps, (found.colours, found.form), found.repaired)


def _as_it_is(stream: BinaryIO, name: str, rules: ClipRules, own: PictureRules) -> StoredClip:
    data = stream.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ClipError("media_huge", f"{name} is larger than {LARGEST_FILE:,} bytes; store its frames")
    found = decode_clip(data, name, SEEN)
    pixels = found.frames[len(found.frames) // 2]
    check_shape(pixels.shape[1::-1], name, own)
    with ClipFile(data, name) as file:
        count, first, last = file.count()
    if count < LEAST or first >= last:
        raise ClipError("video_short", f"{name}: {count} frame; two make a clip")
    suffix = PurePosixPath(name).suffix.lower().lstrip(".")
    member = (
        suffix if suffix in KEPT_AS else next((one for one in KEPT_AS if one in found.form), found.form.split(",")[0])
    )
    height, width = pixels.shape[:2]
    blank = (BLANK,) if all(_is_blank(frame) for frame in found.frames) else ()
    return StoredClip(
        "video", (data,), member, (round(first, 6), round(last, 6)), count, found.fps, _as_picture(pixels, name),
        found.colours, found.form, width, height, (*blank, *found.repaired),
    )  # fmt: skip


def _of_pictures(clip: Frames, name: str, rules: ClipRules, own: PictureRules) -> StoredClip:
    """Of frames that the source took itself: those on the screen at the moments that the rules ask for."""
    if len(clip.frames) < LEAST:
        raise ClipError("video_short", f"{name} has {len(clip.frames)} frame; two make a clip")
    begin, last = clip.seconds[0], clip.seconds[-1]
    end = last + (last - begin) / (len(clip.seconds) - 1)
    sampling = "per_second" if rules.sampling == "uniform" else "first"
    wanted = moments(begin, end, rules.max_frames, sampling, rules.frames_per_second)
    places = list(dict.fromkeys(max(0, bisect_right(clip.seconds, second + 1e-6) - 1) for second in wanted))
    if len(places) < LEAST:
        raise ClipError("video_short", f"{name} gives one frame at {rules.frames_per_second:g} a second")
    frames = _Frames(name, own)
    files = [frames.kept(clip.frames[place]) for place in places]
    seconds = [round(clip.seconds[place] - begin, 6) for place in places]
    return frames.stored(files, seconds, clip.fps, (frames.mode, frames.form), ())


class _Frames:
    """Frames one by one -> what is stored of them, all in the size of the first."""

    def __init__(self, name: str, rules: PictureRules) -> None:
        self.name, self.rules = name, rules
        self.size: tuple[int, int] | None = None  # height, width
        self.mode, self.form = "", ""
        self._is_blank, self._resized = True, False

    def encoded(self, pixels: np.ndarray) -> bytes:
        if self.size is None:
            self.size = pixels.shape[0], pixels.shape[1]
            check_shape((self.size[1], self.size[0]), self.name, self.rules)
        elif pixels.shape[:2] != self.size:
            pixels = np.asarray(Image.fromarray(pixels).resize((self.size[1], self.size[0]), Image.Resampling.BICUBIC))
            self._resized = True
        self._is_blank = self._is_blank and _is_blank(pixels)
        return encode(pixels, self.rules)

    def kept(self, picture: Picture) -> bytes:
        """Byte for byte, where the frame can stay as it is."""
        content = picture.content
        if isinstance(content, Image.Image):
            self.mode, self.form = content.mode, "array"
            return self.encoded(to_array(content, picture.name))
        if not isinstance(content, bytes):
            try:
                content = content.read()
            except Unfit as fault:
                raise Unfit(fault.reason, f"{picture.name} {fault.detail}") from fault
        found = store(content, picture.name, self.rules)
        self.mode, self.form = self.mode or found.source_mode, self.form or found.source_format
        size = found.height, found.width
        self.size = self.size or size
        if size != self.size:
            return self.encoded(decode(found.data, picture.name, min_side=1))
        self._is_blank = self._is_blank and _is_blank(found.upright)
        return found.data

    def stored(
        self,
        files: Sequence[bytes],
        seconds: Sequence[float],
        fps: float | None,
        source: tuple[str, str],
        repaired: Sequence[str],
    ) -> StoredClip:
        assert self.size is not None
        told = (*([BLANK] if self._is_blank else []), *(["frames_resized"] if self._resized else []), *repaired)
        middle = reread(files[len(files) // 2], self.name)
        return StoredClip(
            "frames", tuple(files), MEMBERS[self.rules.format], tuple(seconds), len(files), fps, middle, *source,
            self.size[1], self.size[0], told,
        )  # fmt: skip


def _is_blank(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[0, 0]).all())


def _as_picture(pixels: np.ndarray, name: str) -> Stored:
    rules: Any = PictureRules("png", 1 << 20, 1, 1e9, True, 90, "4:4:4", 1 << 62)
    return store(Image.fromarray(pixels), name, rules)
