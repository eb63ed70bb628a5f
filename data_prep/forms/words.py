"""What is said of a drawing, in one style for captions, answers and preference pairs: lower case, no full stop."""

from __future__ import annotations

from data_prep.forms.facts import draw
from data_prep.reading.shapes import NAMES, SHAPES, centre

ASKED = "Describe the picture."  # as the benchmark small_descriptions asks
SIDE = 64  # pixels of a drawing


def one(colour: str, shape: str) -> str:
    return f"there is one {colour} {shape}"


def invented(colour: str, shape: str, *key: object) -> str:
    """A second thing that is not there, in another colour and of another shape: "red circle"; by a hash of the key."""
    return draw([f"{c} {s}" for c in NAMES for s in SHAPES if c != colour and s != shape], *key)


def with_second(colour: str, shape: str, second: str) -> str:
    """second: "red circle"."""
    return f"{one(colour, shape)} and a {second}"


def place(data: bytes, colour: str, middle: int) -> str:
    """Where the shape is, from its pixels: "at the left", "at the bottom right", "" in the middle.

    data: PNG.   middle: pixels around both axes in which a shape's middle is neither left nor right, top nor bottom.
    Every drawing has exactly one of the nine places, so two different ones never fit the same drawing.
    """
    x, y = (_side(value - SIDE / 2, middle / 2) for value in centre(data, colour))
    words = [word for word in (("top", "", "bottom")[y], ("left", "", "right")[x]) if word]
    return f"at the {' '.join(words)}" if words else ""


def _side(offset: float, most: float) -> int:
    """0 before the middle, 1 in it, 2 behind it."""
    return 1 if abs(offset) < most else 0 if offset < 0 else 2
