"""Descriptions of pictures that hold exactly one coloured shape: right, or what was made up.

An answer is right if it names the colour and the shape and no other: "there is one red circle".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlm.contracts.benchmark import Measure, Scored, Scorer
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.measures import mean, mean_of
from vlm.evaluation.scorers.trivial import always, most_frequent

# What may be named, by any word that means it: those of the pictures, and the commonest others that a model makes up.
COLOURS = {
    "black": "black", "blue": "blue", "brown": "brown", "gray": "gray", "grey": "gray", "green": "green", "red": "red",
    "teal": "teal", "yellow": "yellow", "beige": "beige", "cyan": "cyan", "gold": "gold", "magenta": "magenta",
    "maroon": "maroon", "orange": "orange", "pink": "pink", "purple": "purple", "silver": "silver",
    "turquoise": "turquoise", "violet": "violet", "white": "white",
}  # fmt: skip
SHAPES = {
    "circle": "circle", "rectangle": "rectangle", "triangle": "triangle", "square": "square", "star": "star",
    "oval": "oval", "ellipse": "ellipse", "diamond": "diamond", "pentagon": "pentagon", "hexagon": "hexagon",
    "heart": "heart", "cross": "cross", "arrow": "arrow", "cube": "cube", "sphere": "sphere", "ball": "ball",
    "line": "line", "dot": "dot",
}  # fmt: skip
# A number, or one of these words, of a thing says that there are more of it.
SEVERAL = re.compile(r"\b(?:two|three|four|five|six|seven|eight|nine|ten|several|many|both|another|[2-9]|[1-9]\d+)\b")
WORDS = re.compile(r"[a-z]+")
TEMPLATE = "there is one {} {}"  # the form of the prepared captions


@dataclass(frozen=True)
class Named:
    """Colours and shapes in an answer, in order; shapes as often as they occur.   several: a number above one."""

    colours: tuple[str, ...]
    shapes: tuple[str, ...]
    several: bool


def read(answer: str) -> Named:
    """What an answer names. A plural ("circles") is several of its kind."""
    lower = answer.lower()
    colours, shapes, several = [], [], SEVERAL.search(lower) is not None
    for word in WORDS.findall(lower):
        single = _singular(word)
        if word in COLOURS:
            colours.append(COLOURS[word])
        elif single in SHAPES:
            shapes.append(SHAPES[single])
            several = several or single != word
    return Named(tuple(colours), tuple(shapes), several)


def exact(prediction: Any, reference: Any) -> dict[str, Any]:
    """Right if colour and shape are named and nothing else is.

    reference: {"colour" or "color", "shape"}.   wrong_colour, wrong_shape: one is named, but not that of the picture.
    invented: a second shape or colour, or several of one, is named beside what stands for the shape.
    """
    colour, shape = _gold(reference)
    named = read(str(prediction))
    wrong_colour = bool(named.colours) and colour not in named.colours
    wrong_shape = bool(named.shapes) and shape not in named.shapes
    invented = (named.several and bool(named.shapes)) or len(named.shapes) > 1 or len(set(named.colours)) > 1
    right = set(named.colours) == {colour} and named.shapes == (shape,) and not invented
    said = " ".join([*named.colours, *named.shapes])
    return {
        "extracted": said or None,
        "score": float(right),
        "wrong_colour": wrong_colour,
        "wrong_shape": wrong_shape,
        "invented": invented,
    }


def measures(rows: Sequence[Scored]) -> list[Measure]:
    records = [exact(row.prediction, row.reference) for row in rows]
    ones = [1.0] * len(rows)
    faults = ("wrong_colour", "wrong_shape", "invented")
    found = [mean(rows, "right")]
    found += [mean_of([float(record[name]) for record in records], ones, name) for name in faults]
    any_fault = [float(any(record[name] for name in faults)) for record in records]
    return [*found, mean_of(any_fault, ones, "any_hallucination")]


def constants(references: Sequence[Any]) -> dict[str, list[str]]:
    """The commonest drawing; and a sentence that names every colour and shape, which is never right."""
    drawings = [TEMPLATE.format(*_gold(reference)) for reference in references]
    colours = sorted({_gold(reference)[0] for reference in references})
    shapes = sorted({_gold(reference)[1] for reference in references})
    return {
        "most frequent drawing": always(most_frequent(drawings), references),
        "all colours and shapes": always(" ".join([*colours, *shapes]), references),
        "empty": always("", references),
    }


def unparsable(prediction: Any, reference: Any, record: Mapping[str, Any]) -> bool:
    """Neither a colour nor a shape is named."""
    return record["extracted"] is None


def _singular(word: str) -> str:
    for ending in ("s", "es"):
        if word.endswith(ending) and word.removesuffix(ending) in SHAPES:
            return word.removesuffix(ending)
    return word


def _gold(reference: Any) -> tuple[str, str]:
    """(colour, shape)"""
    colour = shape = None
    if isinstance(reference, Mapping):
        colour = COLOURS.get(str(reference.get("colour", reference.get("color"))).lower())
        shape = SHAPES.get(str(reference.get("shape")).lower())
    if colour is None or shape is None:
        raise InputError(f"descriptions: {reference!r} needs `colour` and `shape`, each one that is known by its word")
    return colour, shape


SCORER = Scorer(
    default="exact",
    cases={"exact": exact},
    measures=measures,
    constants=constants,
    unparsable=unparsable,
    parsed=lambda record: record["extracted"],
)
