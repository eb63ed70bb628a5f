"""POPE: is this in the picture? Three questions with yes and three with no a picture, in three files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from data_prep.forms.facts import Fact, commonest, draw, number
from data_prep.forms.material import File, Material

SMALL = 500  # pictures of the small files: 3,000 questions, as many as the original's
ABOUT = """Every picture has six questions: for its shape, its colour and both together one with the answer yes and one
with no, so no kind of question tells the answer. The pictures and the questions with yes are the same in all files.
What a question with no asks for:

* random: drawn by a hash;
* popular: what is commonest in the training pictures and not in this one;
* adversarial: both together with one of the two right (right colour and wrong shape, or the other way round); a shape
  or a colour alone cannot be nearly right and is drawn by a hash.

`small/` has 500 of the pictures. Always yes: accuracy 50, F1 66.67, share of yes 100. Always the commonest training
answer of the same question text: 50 in all files. Who has learned from questions made in the same way about other
pictures gets 51 (random), 83 (popular) and 50 (adversarial) blindly: popular asks for the commonest with no."""
Asked = tuple[str, str]  # text, label


def files(material: Material) -> Iterator[File]:
    facts = material.facts
    chosen = sorted(facts, key=lambda fact: number("pope", "small", fact.key))[:SMALL]
    few, popular = [fact for fact in facts if fact in chosen], Popular(material.train)
    for folder, part in (("", facts), ("small/", few)):
        for kind in ("random", "popular", "adversarial"):
            rows = _rows(part, kind, popular)
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            yield File(f"{folder}coco_pope_{kind}.json", lines.encode(), len(rows))
    for fact in facts:
        yield File(f"val2014/{fact.key}.png", fact.data)


def _rows(facts: Sequence[Fact], kind: str, popular: Popular) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for fact in facts:
        for text, label in [*_present(fact), *_absent(fact, kind, popular)]:
            rows.append({"question_id": len(rows) + 1, "image": f"{fact.key}.png", "text": text, "label": label})
    return rows


class Popular:
    """Shapes, colours and both together of the training pictures, the commonest first."""

    def __init__(self, train: Sequence[Fact]) -> None:
        self.shapes = commonest(fact.shape for fact in train)
        self.colours = commonest(fact.colour for fact in train)
        self.both = commonest((fact.colour, fact.shape) for fact in train)


def _present(fact: Fact) -> list[Asked]:
    return [(question, "yes") for question in asked(fact.shape, fact.colour, (fact.colour, fact.shape))]


def _absent(fact: Fact, kind: str, popular: Popular) -> list[Asked]:
    if kind == "popular":
        shape = next(name for name in popular.shapes if name != fact.shape)
        colour = next(name for name in popular.colours if name != fact.colour)
        both = next(names for names in popular.both if names != (fact.colour, fact.shape))
    else:
        shape = draw(fact.other_shapes, "pope", kind, fact.key, "shape")
        colour = draw(fact.other_colours, "pope", kind, fact.key, "color")
        both = draw(near(fact) if kind == "adversarial" else wrong(fact), "pope", kind, fact.key, "both")
    return [(question, "no") for question in asked(shape, colour, both)]


def asked(shape: str, colour: str, both: tuple[str, str]) -> list[str]:
    return [
        f"Is there a {shape} in the image?",
        f"Is there a {colour} shape in the image?",
        f"Is there a {' '.join(both)} in the image?",
    ]


def wrong(fact: Fact) -> list[tuple[str, str]]:
    """All (colour, shape) but the picture's own."""
    colours, shapes = [fact.colour, *fact.other_colours], [fact.shape, *fact.other_shapes]
    return [(colour, shape) for colour in colours for shape in shapes][1:]


def near(fact: Fact) -> list[tuple[str, str]]:
    """One of the two right; each of the two kinds is equally likely to be drawn."""
    shapes = [(fact.colour, shape) for shape in fact.other_shapes]
    colours = [(colour, fact.shape) for colour in fact.other_colours]
    return shapes * len(colours) + colours * len(shapes)
