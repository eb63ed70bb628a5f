"""easy-VQA's pictures of one shape -> a description made from its annotations and checked against its pixels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import ClassVar

from PIL import Image

from data_prep.reading.archive import files
from data_prep.rows import Inputs, Picture, Row, Skip
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

SHAPES = ("circle", "rectangle", "triangle")
COLOURS: dict[tuple[int, ...], str] = {  # exact colours of the drawn shapes
    (0, 0, 255): "blue", (255, 0, 0): "red", (165, 42, 42): "brown", (255, 255, 0): "yellow",
    (0, 0, 0): "black", (128, 128, 128): "gray", (0, 128, 128): "teal", (0, 255, 0): "green",
}  # fmt: skip
ROOT = "easy_vqa/data/"


@dataclass(frozen=True)
class DescribedShapes:
    """A caption such as "there is one teal triangle" for every picture whose shape its questions tell."""

    __pydantic_config__: ClassVar = STRICT
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return 5000

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Training pictures, then test pictures, by number. Raises: InputError for files of another form."""
        place = inputs.only()
        for split in ("train", "test"):
            pictures = {found.name: found.data for found in files(place, f"{ROOT}{split}/images/", (".png",))}
            (questions,) = files(place, f"{ROOT}{split}/questions.json", (".json",))
            if place.is_dir():
                inputs.note(place / questions.name)
            shapes, colours = facts(json.loads(questions.data), questions.name)
            for number in sorted({int(name.rsplit("/", 1)[1].removesuffix(".png")) for name in pictures} | set(shapes)):
                name = f"{ROOT}{split}/images/{number}.png"
                origin = Origin(questions.name, number, f"{split}-{number}")
                yield self._row(split, origin, name, pictures.get(name), shapes.get(number, set()), colours.get(number))

    def _row(
        self, split: str, origin: Origin, name: str, data: bytes | None, shapes: set[str], told: str | None
    ) -> Row | Skip:
        if data is None:
            return Skip(split, origin, "media_missing", f"{name} is not in the package")
        if len(shapes) != 1:
            return Skip(split, origin, "annotation_missing", f"its questions leave {len(shapes)} shapes possible")
        seen = drawn_colour(data)
        if seen is None or told not in (None, seen):
            return Skip(split, origin, "label_bad", f"its questions say {told}, its pixels {seen}")
        (shape,) = shapes
        caption = f"there is one {seen} {shape}"
        meta = {"shape": shape, "color": seen}
        return Row(split, origin, (Picture(data, name),), self.license, caption=caption, meta=meta)


def facts(questions: list[list], file: str) -> tuple[dict[int, set[str]], dict[int, str]]:
    """picture number -> shapes that its questions leave possible, and -> the colour that they tell.

    Raises: InputError for a row that is not [question, answer, number].
    """
    shapes: dict[int, set[str]] = {}
    colours: dict[int, str] = {}
    for row, entry in enumerate(questions):
        if len(entry) != 3 or not isinstance(entry[2], int):
            raise InputError(f"{file} row {row + 1}: {entry!r:.80} is not [question, answer, picture number]")
        question, answer, number = entry
        possible = shapes.setdefault(number, set(SHAPES))
        named = set(re.findall(r"\w+", question)) & set(SHAPES)
        if answer in SHAPES:
            possible &= {answer}
        elif answer in ("yes", "no"):
            denied = bool(re.search(r"\b(not|no)\b", question))
            holds = (answer == "yes") != denied
            if named:
                possible &= named if holds else set(SHAPES) - named
        else:
            colours[number] = answer
            if named:
                possible &= named  # "what color is the circle?" names the shape
    return shapes, colours


def drawn_colour(data: bytes) -> str | None:
    """The one palette colour that covers most pixels, None if there is none of them."""
    with Image.open(BytesIO(data)) as picture:
        counts = picture.convert("RGB").getcolors(maxcolors=picture.width * picture.height) or []
    known = [(count, COLOURS[colour]) for count, colour in counts if colour in COLOURS]
    return max(known)[1] if known else None
