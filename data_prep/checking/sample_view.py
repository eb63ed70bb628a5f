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
from vlm.data.canonical import MediumPart, MediumRecord, Message, Record, to_sample
from vlm.data.pairs import Span, changed_words
from vlm.data.pictures import PictureError, open_picture
from vlm.data.shards import ShardSet, key_of

SIDE = 320  # pixels of the longer side on the page
SHARP_BELOW = 96  # smaller pictures are enlarged in blocks, so that their pixels can be seen
PICTURES = 8  # of one sample
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
    """A picture. source: data URI, None if it cannot be decoded or is no picture.   note: what it is, or the fault."""

    source: str | None
    note: str
    origin: str
    is_tiny: bool = False


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
    pictures = list(zip(record.media, payloads, strict=True))
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


def _picture(medium: MediumRecord, data: bytes) -> Shown:
    note = f"{medium.member}, {medium.w}x{medium.h}, {len(data):,} bytes"
    if medium.type != "image":
        return Shown(None, f"{medium.type}: {note}", medium.orig)
    try:
        picture = open_picture(data, medium.member, min_side=1)
    except PictureError as error:
        return Shown(None, str(error), medium.orig)
    is_tiny = max(picture.size) < SHARP_BELOW
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream, form = BytesIO(), "png" if is_tiny or medium.member.endswith("png") else "jpeg"
    picture.save(stream, form, quality=85, optimize=True)
    source = f"data:image/{form};base64,{base64.b64encode(stream.getvalue()).decode()}"
    return Shown(source, note, medium.orig, is_tiny)


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
