"""easy-VQA's pictures of one shape, the questions about each, and the facts that questions and pixels tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from data_prep.reading.archive import files
from data_prep.rows import Inputs
from vlm.contracts.errors import InputError

SHAPES = ("circle", "rectangle", "triangle")
COLOURS: dict[tuple[int, ...], str] = {  # exact colours of the drawn shapes
    (0, 0, 255): "blue", (255, 0, 0): "red", (165, 42, 42): "brown", (255, 255, 0): "yellow",
    (0, 0, 0): "black", (128, 128, 128): "gray", (0, 128, 128): "teal", (0, 255, 0): "green",
}  # fmt: skip
NAMES = tuple(sorted(COLOURS.values()))
ROOT = "easy_vqa/data/"


@dataclass(frozen=True)
class Question:
    """row: its place in questions.json."""

    row: int
    text: str
    answer: str

    @property
    def kind(self) -> str:
        """`yesno`, or `open`: a shape or a colour."""
        return "yesno" if self.answer in ("yes", "no") else "open"


@dataclass(frozen=True)
class Drawing:
    """A picture with what is said of it.

    key: split and number, for both splits number their pictures from 0.   data: PNG, None if it is missing.
    shapes: those that its questions leave possible.   told: the colour that they tell, None if they tell none.
    """

    split: str
    number: int
    file: str
    name: str
    data: bytes | None
    questions: tuple[Question, ...]
    shapes: frozenset[str]
    told: str | None

    @property
    def key(self) -> str:
        return f"{self.split}-{self.number}"

    @cached_property
    def colour(self) -> str | None:
        """The colour in its pixels."""
        return None if self.data is None else drawn_colour(self.data)

    @property
    def facts(self) -> tuple[str, str] | None:
        """(colour, shape), None where one of them is unknown or questions and pixels disagree."""
        if len(self.shapes) != 1 or self.colour is None or self.told not in (None, self.colour):
            return None
        (shape,) = self.shapes
        return self.colour, shape

    @property
    def states_shape(self) -> bool:
        """Whether a question names its shape outright; else it may still follow from denying the two others."""
        return any(_stated(question) for question in self.questions)


def drawings(inputs: Inputs, split: str) -> Iterator[Drawing]:
    """The pictures of a split by number, and those that are missing but asked about.

    Raises: InputError for files of another form.
    """
    place = inputs.only()
    pictures = {found.name: found.data for found in files(place, f"{ROOT}{split}/images/", (".png",))}
    (table,) = files(place, f"{ROOT}{split}/questions.json", (".json",))
    if place.is_dir():
        inputs.note(place / table.name)
    rows = json.loads(table.data)
    shapes, colours = facts(rows, table.name)
    asked: dict[int, list[Question]] = {}
    for row, (text, answer, number) in enumerate(rows):
        asked.setdefault(number, []).append(Question(row, text, answer))
    for number in sorted({int(name.rsplit("/", 1)[1].removesuffix(".png")) for name in pictures} | set(asked)):
        name = f"{ROOT}{split}/images/{number}.png"
        possible = frozenset(shapes.get(number, ()))
        told = colours.get(number)
        questions = tuple(asked.get(number, ()))
        yield Drawing(split, number, table.name, name, pictures.get(name), questions, possible, told)


def facts(questions: Sequence[Any], file: str) -> tuple[dict[int, set[str]], dict[int, str]]:
    """picture number -> shapes that its questions leave possible, and -> the colour that they tell.

    Raises: InputError for a row that is not [question, answer, number].
    """
    shapes: dict[int, set[str]] = {}
    colours: dict[int, str] = {}
    for row, entry in enumerate(questions):
        if not isinstance(entry, list) or [type(value) for value in entry] != [str, str, int]:
            raise InputError(f"{file} row {row + 1}: {entry!r:.80} is not [question, answer, picture number]")
        question, answer, number = entry
        possible = shapes.setdefault(number, set(SHAPES))
        named = set(re.findall(r"\w+", question)) & set(SHAPES)
        if answer in SHAPES:
            possible &= {answer}
        elif answer in ("yes", "no"):
            if named:
                possible &= named if affirms(question, answer) else set(SHAPES) - named
        else:
            colours[number] = answer
            if named:
                possible &= named  # "what color is the circle?" names the shape
    return shapes, colours


def affirms(question: str, answer: str) -> bool:
    """Whether a yes or no says that what the question names is there; half of the questions are negated."""
    return (answer == "yes") != bool(re.search(r"\b(not|no)\b", question))


def _stated(question: Question) -> bool:
    if question.answer in SHAPES:
        return True
    named = bool(set(re.findall(r"\w+", question.text)) & set(SHAPES))
    return named and (question.kind == "open" or affirms(question.text, question.answer))


def contradiction(drawing: Drawing) -> str | None:
    """What is wrong with a picture's answers, None if all of them agree with each other and with its pixels."""
    if not drawing.shapes:
        return "its questions leave no shape possible"
    for question in drawing.questions:
        if question.answer in SHAPES:
            continue  # counted in drawing.shapes
        named = set(re.findall(r"\w+", question.text)) & set(NAMES)
        if question.kind == "open":
            agrees = question.answer == drawing.colour
        else:
            agrees = not named or (drawing.colour in named) == affirms(question.text, question.answer)
        if not agrees:
            return f"{question.text!r} is answered {question.answer!r}, but its pixels are {drawing.colour}"
    return None


def drawn_colour(data: bytes) -> str | None:
    """The one palette colour that covers most pixels, None if there is none of them."""
    with Image.open(BytesIO(data)) as picture:
        counts = picture.convert("RGB").getcolors(maxcolors=picture.width * picture.height) or []
    known = [(count, COLOURS[colour]) for count, colour in counts if colour in COLOURS]
    return max(known)[1] if known else None


def centre(data: bytes, colour: str) -> tuple[float, float]:
    """Middle of the shape's bounding box, (x, y) in pixels from the upper left corner."""
    exact = next(pixel for pixel, name in COLOURS.items() if name == colour)
    with Image.open(BytesIO(data)) as picture:
        rows, columns = np.nonzero((np.array(picture.convert("RGB")) == exact).all(axis=2))
    return (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
