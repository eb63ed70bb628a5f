"""easy-VQA's pictures with a request to describe them; on demand some answers invent a thing, and say so in `meta`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from data_prep.forms.facts import drawn, side_of
from data_prep.forms.words import ASKED, invented, with_second
from data_prep.reading.shapes import drawings
from data_prep.rows import Inputs, Row, Skip, question, reply
from data_prep.sets.easy_vqa_captions import described
from vlm.contracts.ranges import Fraction, NonNegativeInt
from vlm.contracts.settings import STRICT

FAULT = "invented_object"  # in meta.declared_faults of an answer that names one; meta.invented says which


@dataclass(frozen=True)
class AskedDescriptions:
    """Chats of one turn about training pictures; the truth about test pictures stands in easy_vqa_captions.

    described: share of the pictures that are described, by a hash of their key, of those whose shape is known.
    invented: share of those descriptions that name a second thing that is not there.
    val_from: training pictures from this number on are held out; their answers have the same faults.
    """

    __pydantic_config__: ClassVar = STRICT
    license: str
    described: Fraction
    invented: Fraction
    val_from: NonNegativeInt

    def total(self, inputs: Inputs) -> int | None:
        return 4000

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Training pictures by number. Raises: InputError for files of another form."""
        for drawing in drawings(inputs, "train"):
            row = described(drawing, side_of(drawing, self.val_from), self.license)
            yield row if isinstance(row, Skip) else self._asked(row)

    def _asked(self, row: Row) -> Row | Skip:
        key, meta, caption = row.origin.id, row.meta or {}, row.caption or ""
        if not drawn(self.described, "described", key):
            return Skip(row.split, row.origin, "excluded", f"not among the {self.described:.0%} that are described")
        if drawn(self.invented, "flawed", key):
            second = invented(meta["color"], meta["shape"], "flawed", key, "second")
            caption = with_second(meta["color"], meta["shape"], second)
            meta = {**meta, "declared_faults": [FAULT], "invented": second}
        return replace(row, caption=None, messages=[question(ASKED), reply(caption)], meta=meta)
