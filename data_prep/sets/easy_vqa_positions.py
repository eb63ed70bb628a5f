"""easy-VQA's pictures of one shape -> a description that also says where the shape is, from its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from data_prep.forms.facts import side_of
from data_prep.forms.words import place
from data_prep.reading.shapes import drawings
from data_prep.rows import Inputs, Row, Skip
from data_prep.sets.easy_vqa_captions import described
from vlm.contracts.ranges import NonNegativeInt
from vlm.contracts.settings import STRICT


@dataclass(frozen=True)
class PlacedShapes:
    """A caption such as "there is one teal triangle at the top left"; meta.place holds its end, "" in the middle.

    middle: pixels around both axes in which a shape's middle is neither left nor right, top nor bottom.
    val_from: training pictures from this number on are held out.
    """

    __pydantic_config__: ClassVar = STRICT
    license: str
    middle: NonNegativeInt
    val_from: NonNegativeInt

    def total(self, inputs: Inputs) -> int | None:
        return 5000

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Training pictures, then test pictures, by number. Raises: InputError for files of another form."""
        for split in ("train", "test"):
            for drawing in drawings(inputs, split):
                row = described(drawing, side_of(drawing, self.val_from), self.license)
                if isinstance(row, Skip) or drawing.data is None or drawing.colour is None:
                    yield row
                    continue
                where = place(drawing.data, drawing.colour, self.middle)
                caption = f"{row.caption} {where}".rstrip()
                yield replace(row, caption=caption, meta={**(row.meta or {}), "place": where})
