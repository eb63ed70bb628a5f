"""Preference pairs from easy-VQA's facts: written in RLHF-V's file form, then read by RLHF-V's own reader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from data_prep.forms.pairs import SIZES, Kind, pairs, write
from data_prep.reading.shapes import drawings
from data_prep.rows import Inputs, Row, Skip
from data_prep.sets.rlhf_v import FILE, RlhfV
from vlm.contracts.ranges import NonNegativeInt, PositiveInt
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin


@dataclass(frozen=True)
class SmallPairs:
    """Pairs about training pictures. kinds: kind of pair -> its share, 0 = none.   size: tiny, small, full, or a number."""

    __pydantic_config__: ClassVar = STRICT
    license: str
    kinds: dict[Kind, NonNegativeInt]
    size: Literal["tiny", "small", "full"] | PositiveInt

    def total(self, inputs: Inputs) -> int | None:
        return SIZES[self.size] if isinstance(self.size, str) else self.size

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for files of another form."""
        reader = RlhfV(self.license, None)
        made = pairs(list(drawings(inputs, "train")), self.kinds, self.total(inputs))
        if inputs.dry:  # nothing may be written
            for number, content in enumerate(made):
                yield reader.row(Origin(FILE, number, str(number)), content)
        else:
            write(inputs.scratch / FILE, made)
            yield from reader.rows(Inputs({"made": inputs.scratch}))  # the package is the input, not this file
