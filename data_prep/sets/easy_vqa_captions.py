"""easy-VQA's pictures of one shape -> a description made from its annotations and checked against its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from data_prep.forms.words import one
from data_prep.reading.shapes import Drawing, drawings
from data_prep.rows import Inputs, Picture, Row, Skip
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin


@dataclass(frozen=True)
class DescribedShapes:
    """A caption such as "there is one teal triangle" for every picture whose shape its questions tell."""

    __pydantic_config__: ClassVar = STRICT
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return 5000

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Training pictures, then test pictures, by number. Raises: InputError for files of another form."""
        for split in ("train", "test"):
            for drawing in drawings(inputs, split):
                yield described(drawing, drawing.split, self.license)


def described(drawing: Drawing, split: str, license: str) -> Row | Skip:
    """A drawing with its caption; meta holds `shape` and `color`. split: where it goes."""
    shapes, told, seen = drawing.shapes, drawing.told, drawing.colour
    origin = Origin(drawing.file, drawing.number, drawing.key)
    if drawing.data is None:
        return Skip(split, origin, "media_missing", f"{drawing.name} is not in the package")
    if len(shapes) != 1:
        return Skip(split, origin, "annotation_missing", f"its questions leave {len(shapes)} shapes possible")
    if drawing.facts is None:
        return Skip(split, origin, "label_bad", f"its questions say {told}, its pixels {seen}")
    colour, shape = drawing.facts
    meta = {"shape": shape, "color": colour}
    picture = Picture(drawing.data, drawing.name)
    return Row(split, origin, (picture,), license, caption=one(colour, shape), meta=meta)
