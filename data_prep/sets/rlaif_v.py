"""RLAIF-V: pairs of model answers that another model judged, in several parquet files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from data_prep.pairs import json_object, pair, shown
from data_prep.reading.tables import parquet_rows, row_count
from data_prep.rows import Inputs, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

COLUMNS = {
    "ds_name": "string", "image": "image", "question": "string", "chosen": "string", "rejected": "string",
    "origin_dataset": "string", "origin_split": "string", "idx": "string", "image_path": "string",
}  # fmt: skip
LEFT_OUT = {"logps": "unread"}  # log-probabilities under the publisher's own reference model
FORM = f"{', '.join(COLUMNS)}; image is {{bytes, path}}, idx a text, origin_split a JSON string"


@dataclass(frozen=True)
class RlaifV:
    """Rows of all files, in the order of their numbers; many pairs share a picture and stay in one split."""

    __pydantic_config__: ClassVar = STRICT
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return sum(row_count(path) for path in published(inputs))

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for a file that is missing, foreign or damaged, or JSON of another form."""
        for path in published(inputs):
            if not inputs.dry:  # hashing a gigabyte is no trial
                inputs.note(path)
            for number, content in parquet_rows(path, COLUMNS, FORM, LEFT_OUT):
                origin = Origin(path.name, number, content["idx"] or str(number))
                try:
                    yield self._row(origin, content)
                except Unfit as fault:
                    yield Skip(None, origin, fault.reason, fault.detail)

    def _row(self, origin: Origin, content: dict[str, Any]) -> Row:
        answered = json_object(origin, "origin_split", content["origin_split"], ("model", "type"))
        meta = {"origin_dataset": content["origin_dataset"], **answered}
        picture = shown(content["image"], content["image_path"])
        asked, chosen, rejected = (content[name] or "" for name in ("question", "chosen", "rejected"))
        return pair(origin, picture, self.license, asked, chosen, rejected, meta)


def published(inputs: Inputs) -> list[Path]:
    """The files by number. Raises: InputError if there are none, or if one between them is missing."""
    folder = inputs.only()
    numbered = {}
    for path in folder.glob("RLAIF-V-Dataset_*.parquet"):
        match = re.fullmatch(r"RLAIF-V-Dataset_(\d+)\.parquet", path.name)
        if match:
            numbered[int(match[1])] = path
    missing = sorted(set(range(max(numbered, default=0) + 1)) - set(numbered))
    if missing:
        names = ", ".join(f"RLAIF-V-Dataset_{number:03d}.parquet" for number in missing[:5])
        raise InputError(f"{folder} lacks {names}; put all files there, or give from=openbmb/RLAIF-V-Dataset")
    return [numbered[number] for number in sorted(numbered)]
