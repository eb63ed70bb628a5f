"""Preference pairs from easy-VQA's facts: written in RLHF-V's file form, then read by RLHF-V's own reader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from data_prep.forms.facts import side_of
from data_prep.forms.pairs import SIZES, Kind, pairs, write
from data_prep.reading.shapes import drawings
from data_prep.rows import Inputs, Row, Skip
from data_prep.sets.rlhf_v import FILE, RlhfV
from vlm.contracts.ranges import NonNegativeInt, PositiveInt
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin


@dataclass(frozen=True)
class SmallPairs:
    """Pairs about training pictures. kinds: kind of pair -> its share, 0 = none.   size: tiny, small, full, or a number.

    val_from: pictures from this number on are held out with all their pairs; None = the set's `holdout` decides.
    """

    __pydantic_config__: ClassVar = STRICT
    license: str
    kinds: dict[Kind, NonNegativeInt]
    size: Literal["tiny", "small", "full"] | PositiveInt
    val_from: NonNegativeInt | None

    def total(self, inputs: Inputs) -> int | None:
        return SIZES[self.size] if isinstance(self.size, str) else self.size

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for files of another form."""
        found = list(drawings(inputs, "train"))
        splits = {} if self.val_from is None else {f"{one.key}.png": side_of(one, self.val_from) for one in found}
        for row in self._pairs(inputs, pairs(found, self.kinds, self.total(inputs))):
            yield row if isinstance(row, Skip) else replace(row, split=splits.get(row.pictures[0].name))

    def _pairs(self, inputs: Inputs, made: Iterator[dict[str, object]]) -> Iterator[Row | Skip]:
        reader = RlhfV(self.license, None)
        if inputs.dry:  # nothing may be written
            for number, content in enumerate(made):
                yield reader.row(Origin(FILE, number, str(number)), content)
        else:
            write(inputs.scratch / FILE, made)
            yield from reader.rows(Inputs({"made": inputs.scratch}))  # the package is the input, not this file
