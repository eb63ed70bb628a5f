"""Plain rows as a data set gives them: no tensors, no tokens, no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Medium:
    """One picture or clip; a clip is one medium, however many frames it has.

    type: "image", "video" = the file of a clip, "frames" = a clip as pictures of some of its moments.
    data: the encoded file; of "frames" it is empty.   sha256: of the stored bytes; it identifies the medium.
    frames, seconds: of "frames" alone: the encoded pictures in order, at least two, and the moment of each.
    """

    type: Literal["image", "video", "frames"]
    data: bytes
    sha256: str
    frames: tuple[bytes, ...] = ()
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Turn:
    """One message. role: "system", "user" or "assistant".   parts: text, or the index of a medium."""

    role: str
    parts: tuple[str | int, ...]


@dataclass(frozen=True)
class Sample:
    """One training row.

    turns: the conversation; of a preference pair the last turn is the chosen answer.
    rejected: the other answer of a pair.   meta: whatever the source had that no trainer needs.
    """

    key: str
    turns: tuple[Turn, ...]
    media: tuple[Medium, ...] = ()
    rejected: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
