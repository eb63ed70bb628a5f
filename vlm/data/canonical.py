"""The form in which a sample lies in a shard: one JSON record, and one index row that says where it is.

Writer and reader share this file, so a key that one of them does not know is an error, never lost data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from vlm.contracts.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from vlm.contracts.sample import Medium, Sample, Turn
from vlm.contracts.settings import STRICT

VERSION = 1  # of the record below
FORMAT = "vlm-shards/1"  # of the directory, first field of its manifest
BLOCK = 512  # a tar header, and the unit to which members are padded
LEAST_FRAMES = 2  # of a clip; one moment is a picture

# offset: first header of the sample in its shard; span: all its members with headers and padding, so one read gets it.
# json_off counts from offset. tokens is 0 where no tokenizer was named. frames: a picture is one, a clip all its own,
# up to what the field holds. pixels: of one frame of each medium. 36 bytes a row.
INDEX_DTYPE = np.dtype(
    [
        ("shard", "<u4"),
        ("offset", "<u8"),
        ("span", "<u4"),
        ("json_off", "<u4"),
        ("json_len", "<u4"),
        ("tokens", "<u4"),
        ("frames", "<u2"),
        ("media", "<u2"),
        ("pixels", "<u4"),
    ]
)


@dataclass(frozen=True)
class TextPart:
    """Ordinary text; anything in it that looks like a special token is still text."""

    __pydantic_config__: ClassVar = STRICT
    type: Literal["text"]
    text: str


@dataclass(frozen=True)
class MediumPart:
    """i: position in `media`."""

    __pydantic_config__: ClassVar = STRICT
    type: Literal["image", "video"]
    i: NonNegativeInt


@dataclass(frozen=True)
class Message:
    """One turn."""

    __pydantic_config__: ClassVar = STRICT
    role: Literal["system", "user", "assistant"]
    content: list[Annotated[TextPart | MediumPart, Field(discriminator="type")]]

    @property
    def text(self) -> str:
        """All that is said in it."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


@dataclass(frozen=True)
class MediumRecord:
    """member: its extension in the tar.   w, h: pixels.   sha256: of the stored bytes.   phash: 64 bits, hexadecimal.

    orig: path in the source.
    fps: of clips, frames a second in the source, None if it does not tell.
    n, t: of "frames" the pictures stored and the second of each; of a "video" the frames in the file and the seconds
    of the first and the last.   A clip's phash is that of its middle frame; bytes and sha256 are of all its members.
    """

    __pydantic_config__: ClassVar = STRICT
    type: Literal["image", "video", "frames"]
    member: str
    w: PositiveInt
    h: PositiveInt
    bytes: PositiveInt
    sha256: str
    phash: str
    orig: str
    fps: PositiveFloat | None = None
    n: PositiveInt | None = None
    t: list[float] | None = None

    @property
    def members(self) -> list[str]:
        """Extensions of all its members in order: a clip of frames has 000.jpg, 001.jpg, … or 00.000.jpg, …"""
        if self.type != "frames":
            return [self.member]
        place, _, form = self.member.rpartition(".")
        return [".".join(filter(None, (place, f"{number:03d}", form))) for number in range(self.n or 0)]

    @property
    def frames(self) -> int:
        """A picture is one."""
        return self.n or 1


@dataclass(frozen=True)
class Origin:
    """row: counted from 0 before any skipping.   id: the source's own."""

    __pydantic_config__: ClassVar = STRICT
    file: str
    row: NonNegativeInt
    id: str


@dataclass(frozen=True)
class Answer:
    """What an evaluation compares with."""

    __pydantic_config__: ClassVar = STRICT
    type: Literal["open", "yesno", "choice", "number"]
    values: list[str]
    choices: list[str] | None = None
    index: NonNegativeInt | None = None


@dataclass(frozen=True)
class Record:
    """A sample as it is stored. Which of caption, messages, chosen and rejected are there follows from `kind`."""

    __pydantic_config__: ClassVar = STRICT
    v: Literal[1]
    kind: Literal["caption", "chat", "preference"]
    key: str
    set: str
    split: str
    src: Origin
    license: str
    media: list[MediumRecord]
    caption: str | None = None
    messages: list[Message] | None = None
    chosen: list[Message] | None = None
    rejected: list[Message] | None = None
    answer: Answer | None = None
    meta: dict[str, Any] | None = None


FIELDS_OF = {"caption": {"caption"}, "chat": {"messages"}, "preference": {"messages", "chosen", "rejected"}}


@cache
def _adapter() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def to_json(record: Record) -> bytes:
    """The record as it stands in the tar; equal records give equal bytes.

    Raises: ValueError if the record breaks a rule of its kind.
    """
    check(record)
    return _adapter().dump_json(record, exclude_none=True)


def from_json(data: bytes) -> Record:
    """Raises: ValueError that names each unknown key, missing field and wrong type."""
    try:
        record = _adapter().validate_json(data)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'record'}: {e['msg']}" for e in error.errors())
        raise ValueError(faults) from error
    check(record)
    return record


def check(record: Record) -> None:
    """What types cannot say: fields of the kind, order of turns, indices of media, moments of clips.

    Raises: ValueError.
    """
    present = {name for name in ("caption", "messages", "chosen", "rejected") if getattr(record, name) is not None}
    if present != FIELDS_OF[record.kind]:
        raise ValueError(
            f"kind {record.kind} needs {sorted(FIELDS_OF[record.kind])} and nothing else, found {sorted(present)}"
        )
    if record.caption is not None and not record.caption.strip():
        raise ValueError("caption is empty")
    for message in (*(record.messages or ()), *(record.chosen or ()), *(record.rejected or ())):
        for part in message.content:
            if isinstance(part, MediumPart) and part.i >= len(record.media):
                raise ValueError(f"a message points at medium {part.i}, but there are {len(record.media)}")
    for number, medium in enumerate(record.media):
        if fault := _clip_fault(medium):
            raise ValueError(f"medium {number} ({medium.type}) {fault}")
    if record.kind == "chat":
        _ends_in(record.messages, "assistant", "messages")
    if record.kind == "preference":
        _ends_in(record.messages, "user", "messages")
        _ends_in(record.chosen, "assistant", "chosen")
        _ends_in(record.rejected, "assistant", "rejected")


def _ends_in(messages: list[Message] | None, role: str, name: str) -> None:
    if not messages or messages[-1].role != role:
        raise ValueError(f"{name} must end in a turn of the {role}")


def _clip_fault(medium: MediumRecord) -> str:
    """What its type forbids, "" if nothing."""
    if medium.type == "image":
        return "has fps, n or t, which clips have" if (medium.fps, medium.n, medium.t) != (None,) * 3 else ""
    if medium.n is None or medium.t is None:
        return "needs n and t, its frames and their seconds"
    if medium.n < LEAST_FRAMES:
        return f"has {medium.n} frame; a clip has at least {LEAST_FRAMES}"
    wanted = medium.n if medium.type == "frames" else 2
    if len(medium.t) != wanted:
        return f"tells {len(medium.t)} seconds of {wanted}"
    if any(not one < two for one, two in pairwise(medium.t)):  # also for what is no number
        return "has seconds that do not grow"
    return ""


def grouped(record: Record, payloads: Sequence[bytes]) -> list[tuple[MediumRecord, tuple[bytes, ...]]]:
    """Each medium with its members, one but of a clip of frames. payloads: of all members in order.

    Raises: ValueError if there are more or fewer than the record says.
    """
    rest = iter(payloads)
    found = [(medium, tuple(next(rest, b"") for _ in medium.members)) for medium in record.media]
    if sum(len(medium.members) for medium in record.media) != len(payloads):
        raise ValueError(f"{record.key}: {len(payloads)} members are not those of its media")
    return found


def to_sample(record: Record, payloads: Sequence[bytes]) -> Sample:
    """The record and the bytes of its media, in order, as the loader wants them.

    payloads: of all members, so of a clip of frames each of them.
    A caption becomes a user turn that shows the media (the loader adds a prompt) and an assistant turn. The chosen
    answer of a preference pair is the last turn. `answer` goes into `meta`.
    """
    media = tuple(_medium(*one) for one in grouped(record, payloads))
    meta = dict(record.meta or {})
    if record.answer is not None:
        meta["answer"] = {name: value for name, value in vars(record.answer).items() if value is not None}
    if record.caption is not None:
        turns = (Turn("user", tuple(range(len(media)))), Turn("assistant", (record.caption,)))
    else:
        turns = tuple(_turn(message) for message in (*(record.messages or ()), *(record.chosen or ())))
    rejected = None if record.rejected is None else record.rejected[-1].text
    return Sample(record.key, turns, media, rejected, meta)


def _turn(message: Message) -> Turn:
    return Turn(message.role, tuple(p.text if isinstance(p, TextPart) else p.i for p in message.content))


def _medium(entry: MediumRecord, files: tuple[bytes, ...]) -> Medium:
    if entry.type == "frames":
        return Medium("frames", b"", entry.sha256, files, tuple(entry.t or ()))
    return Medium(entry.type, files[0], entry.sha256)
