"""One stored sample, ready for the page: pictures as data, turns in words, answers side by side, what a model reads."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from PIL import Image

from data_prep.checking.marked import Reader, Reading, Stretch
from vlm.contracts.errors import InputError
from vlm.data.canonical import MediumPart, MediumRecord, Message, Record, grouped, to_sample
from vlm.data.clips import choose, decode_clip
from vlm.data.pairs import Span, changed_words
from vlm.data.pictures import PictureError, open_picture
from vlm.data.shards import ShardSet, key_of

SIDE = 320  # pixels of the longer side on the page
SHARP_BELOW = 96  # smaller pictures are enlarged in blocks, so that their pixels can be seen
PICTURES = 8  # of one sample
STRIP = 16  # frames of a clip that are shown side by side
STRIP_SIDE = 128  # pixels of the longer side of each of them
GAP = 4  # pixels between them
CHARACTERS = 4000  # of one text; the page says how many more there are
COMPARED = 2 * CHARACTERS  # of an answer with the other's: what is shown has its counterpart a little further on there
Part = tuple[str, bool]  # of an answer, and whether the other one differs


@dataclass(frozen=True)
class Drawn:
    """A row that was chosen for the page."""

    shards: ShardSet
    row: int


@dataclass(frozen=True)
class Shown:
    """A picture, or the frames of a clip side by side.

    source: data URI, None if it cannot be decoded.   note: what it is, or the fault.
    """

    source: str | None
    note: str
    origin: str
    is_tiny: bool = False
    is_clip: bool = False


@dataclass(frozen=True)
class TurnView:
    """parts: texts, and numbers of pictures from 1."""

    role: str
    parts: list[str | int]
    branch: int | None = None  # of independent questions, from 1


@dataclass(frozen=True)
class SampleView:
    """All of a sample; `fault` alone if its row cannot be read. chosen, rejected: in stretches."""

    key: str
    fault: str = ""
    record: Record | None = None
    pictures: list[Shown] = field(default_factory=list)
    more_pictures: int = 0
    captions: list[str] = field(default_factory=list)
    turns: list[TurnView] = field(default_factory=list)
    chosen: list[Part] = field(default_factory=list)
    rejected: list[Part] = field(default_factory=list)
    answer: str = ""
    meta: str = ""
    reading: Reading = field(default_factory=lambda: Reading([]))


def show(drawn: Drawn, reader: Reader) -> SampleView:
    """Never raises for a damaged sample: what is wrong stands in its place."""
    try:
        record, payloads = drawn.shards.read(drawn.row)
    except InputError as error:
        return SampleView(key_of(drawn.shards.set, drawn.row), fault=str(error))
    meta = dict(record.meta or {})
    captions = [str(text) for text in meta.pop("captions", None) or ([record.caption] if record.caption else [])]
    is_independent = bool(meta.pop("independent", False))
    chosen, rejected = _differences(_text(record.chosen), _text(record.rejected))
    answer = {} if record.answer is None else {k: v for k, v in vars(record.answer).items() if v is not None}
    pictures = grouped(record, payloads)
    return SampleView(
        record.key,
        record=record,
        pictures=[_picture(*one) for one in pictures[:PICTURES]],
        more_pictures=max(0, len(pictures) - PICTURES),
        captions=[_cut(text) for text in captions],
        turns=_turns(record.messages or [], is_independent),
        chosen=chosen,
        rejected=rejected,
        answer=_json(answer),
        meta=_json(meta),
        reading=_shortened(reader.read(to_sample(record, payloads))),
    )


def _picture(medium: MediumRecord, files: tuple[bytes, ...]) -> Shown:
    note = f"{medium.member}, {medium.w}x{medium.h}, {sum(map(len, files)):,} bytes"
    try:
        if medium.type != "image":
            return _strip(medium, files, note)
        picture = open_picture(files[0], medium.member, min_side=1)
    except PictureError as error:
        return Shown(None, str(error), medium.orig)
    is_tiny = max(picture.size) < SHARP_BELOW
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    form = "png" if is_tiny or medium.member.endswith("png") else "jpeg"
    return Shown(_source(picture, form), note, medium.orig, is_tiny)


def _strip(medium: MediumRecord, files: tuple[bytes, ...], note: str) -> Shown:
    """At most 16 frames, evenly spread, in order. Raises: PictureError."""
    if medium.type == "video":
        found = decode_clip(files[0], medium.member, STRIP, longest=STRIP_SIDE)
        frames, seconds = [Image.fromarray(pixels) for pixels in found.frames], found.seconds
    else:
        places = choose(len(files), STRIP)
        frames = [open_picture(files[place], medium.member, min_side=1).convert("RGB") for place in places]
        seconds = [(medium.t or [])[place] for place in places]
    for frame in frames:
        frame.thumbnail((STRIP_SIDE, STRIP_SIDE), Image.Resampling.LANCZOS)
    width, height = frames[0].size
    strip = Image.new("RGB", ((width + GAP) * len(frames) - GAP, height), "white")
    for number, frame in enumerate(frames):
        strip.paste(frame, (number * (width + GAP), 0))
    rate = "" if medium.fps is None else f" at {medium.fps:g} a second"
    shown = ", ".join(f"{second:g}" for second in seconds)
    told = f"{note}; {medium.n} frames, the source{rate or ' tells no rate'}; seconds shown: {shown}"
    return Shown(_source(strip, "png" if medium.member.endswith("png") else "jpeg"), told, medium.orig, is_clip=True)


def _source(picture: Image.Image, form: str) -> str:
    stream = BytesIO()
    picture.save(stream, form, quality=85, optimize=True)
    return f"data:image/{form};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _turns(messages: Sequence[Message], is_independent: bool) -> list[TurnView]:
    turns, branch = [], 0
    for message in messages:
        branch += message.role == "user"
        parts: list[str | int] = [
            part.i + 1 if isinstance(part, MediumPart) else _cut(part.text) for part in message.content
        ]
        turns.append(TurnView(message.role, parts, branch if is_independent and message.role != "system" else None))
    return turns


def _text(messages: Sequence[Message] | None) -> str:
    parts = [part for message in messages or () for part in message.content]
    return "".join("" if isinstance(part, MediumPart) else part.text for part in parts)


def _differences(chosen: str, rejected: str) -> tuple[list[Part], list[Part]]:
    """Both answers in stretches, marked where the other one has other words."""
    spans = changed_words(chosen[:COMPARED], rejected[:COMPARED])
    return _stretches(chosen, spans[0]), _stretches(rejected, spans[1])


def _stretches(text: str, spans: Sequence[Span]) -> list[Part]:
    parts, at = [], 0
    for begin, end in ((begin, min(end, CHARACTERS)) for begin, end in spans if begin < CHARACTERS):
        parts += [(text[at:begin], False), (text[begin:end], True)]
        at = end
    shown, more = text[at:CHARACTERS], len(text) - CHARACTERS
    parts.append((f"{shown} … and {more:,} more characters" if more > 0 else shown, False))
    return [part for part in parts if part[0]]


def _shortened(reading: Reading) -> Reading:
    for segment in reading.segments:
        segment.stretches[:] = [Stretch(one.kind, _cut(one.text), one.tokens) for one in segment.stretches]
    return reading


def _cut(text: str) -> str:
    more = len(text) - CHARACTERS
    return text if more <= 0 else f"{text[:CHARACTERS]} … and {more:,} more characters"


def _json(content: dict[str, Any]) -> str:
    return _cut(json.dumps(content, ensure_ascii=False)) if content else ""
