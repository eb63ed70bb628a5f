"""What the forms are made from: drawings whose colour and shape are both known, and choices that a hash draws."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from data_prep.reading.shapes import NAMES, SHAPES, Drawing

Item = TypeVar("Item")
Pair = tuple[str, str]  # colour, shape


@dataclass(frozen=True)
class Fact:
    """A drawing of one shape. data: its PNG."""

    key: str
    number: int
    data: bytes
    colour: str
    shape: str

    @property
    def other_colours(self) -> list[str]:
        return [name for name in NAMES if name != self.colour]

    @property
    def other_shapes(self) -> list[str]:
        return [name for name in SHAPES if name != self.shape]


def known(drawings: Iterable[Drawing]) -> list[Fact]:
    """Those whose shape a question names outright and whose colour is in their pixels, in their order."""
    return [
        Fact(drawing.key, drawing.number, drawing.data, *drawing.facts)
        for drawing in drawings
        if drawing.data is not None and drawing.facts is not None and drawing.states_shape
    ]


def draw(options: Sequence[Item], *key: object) -> Item:
    """One of them by a hash of the key: the same on every machine and in any order of calls."""
    return options[number(*key) % len(options)]


def number(*key: object) -> int:
    """A whole number below 2**64, by a hash of the key."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, key)).encode()).digest()[:8])


def drawn(share: float, *key: object) -> bool:
    """True for that share of all keys, by a hash."""
    return number(*key) < share * 2**64


def side_of(drawing: Drawing, val_from: int) -> str:
    """Split of a drawing: training pictures from number `val_from` on are `val`, so all sets hold out the same ones."""
    return "val" if drawing.split == "train" and drawing.number >= val_from else drawing.split


def commonest(values: Iterable[Item]) -> list[Item]:
    """Different values, the commonest first; equally common ones by name."""
    counts = Counter(values)
    return sorted(counts, key=lambda value: (-counts[value], str(value)))
