"""easy-VQA -> a picture with all its questions, each a conversation of its own: earlier answers would tell later ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from data_prep.reading.shapes import Drawing, contradiction, drawings
from data_prep.rows import Inputs, Picture, Row, Skip, question, reply
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin


@dataclass(frozen=True)
class EasyVqa:
    """A source row is a question; those about one picture become one sample.

    meta.types: `open` or `yesno` for each question in order; only the open ones prove sight.
    """

    __pydantic_config__: ClassVar = STRICT
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return 5000

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Training pictures, then test pictures, by number. Raises: InputError for files of another form."""
        for split in ("train", "test"):
            for drawing in drawings(inputs, split):
                yield self._row(drawing)

    def _row(self, drawing: Drawing) -> Row | Skip:
        asked = drawing.questions
        origin = Origin(drawing.file, asked[0].row if asked else 0, drawing.key)
        if not asked:
            return Skip(drawing.split, origin, "annotation_missing", f"no question asks about {drawing.name}")
        if drawing.data is None:
            detail = f"{drawing.name} is not in the package"
            return Skip(drawing.split, origin, "media_missing", detail, rows=len(asked))
        fault = contradiction(drawing)
        if fault:
            return Skip(drawing.split, origin, "label_bad", fault, rows=len(asked))
        messages = []
        for number, entry in enumerate(asked):
            messages += [question(entry.text, 1 if number == 0 else 0), reply(entry.answer)]
        meta = {"independent": True, "types": [entry.kind for entry in asked]}
        picture = Picture(drawing.data, drawing.name)
        return Row(drawing.split, origin, (picture,), self.license, messages=messages, meta=meta, merged=len(asked) - 1)
