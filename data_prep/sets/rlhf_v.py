"""RLHF-V: answers of a model beside their correction by people, in one parquet file with JSON inside strings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from data_prep.pairs import json_object, pair, shown
from data_prep.reading.tables import parquet_rows, row_count
from data_prep.rows import Inputs, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.ranges import PositiveInt
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin
from vlm.data.pairs import changed_words

FILE = "RLHF-V-Dataset.parquet"
COLUMNS = {
    "ds_name": "string", "image": "image", "text": "string", "origin_dataset": "string", "origin_split": "string",
    "idx": "int", "image_path": "string",
}  # fmt: skip
FORM = (
    'ds_name, image {bytes, path}, text \'{"question": "…", "chosen": "…", "rejected": "…"}\', origin_dataset, '
    'origin_split \'{"model": "…", "type": "…"}\', idx, image_path'
)


@dataclass(frozen=True)
class RlhfV:
    """Rows of the one file; pairs about one picture stay in one split.

    expect_rows: number of pairs, None = any; earlier revisions of the file hold fewer.
    """

    __pydantic_config__: ClassVar = STRICT
    license: str
    expect_rows: PositiveInt | None

    def total(self, inputs: Inputs) -> int | None:
        return row_count(published(inputs))

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for a missing or foreign file, another number of pairs, or JSON of another form."""
        path = published(inputs)
        found = row_count(path)
        if self.expect_rows not in (None, found):
            raise InputError(
                f"{path}: expected {self.expect_rows} pairs, found {found}; get the newest revision, or pass "
                f"source.reader.expect_rows={found} to accept these (null accepts any number)"
            )
        if not inputs.dry:  # hashing a gigabyte is no trial
            inputs.note(path)
        for number, content in parquet_rows(path, COLUMNS, FORM):
            origin = Origin(path.name, number, str(number if content["idx"] is None else content["idx"]))
            try:
                yield self.row(origin, content)
            except Unfit as fault:
                yield Skip(None, origin, fault.reason, fault.detail)

    def row(self, origin: Origin, content: dict[str, Any]) -> Row:
        """One row of the file. Raises: Unfit if it alone is at fault, InputError if the file is of another form."""
        text = json_object(origin, "text", content["text"], ("question", "chosen", "rejected"))
        answered = json_object(origin, "origin_split", content["origin_split"], ("model", "type"))
        diff_chosen, diff_rejected = changed_words(text["chosen"], text["rejected"])
        meta = {
            "diff_chosen": diff_chosen, "diff_rejected": diff_rejected,
            "origin_dataset": content["origin_dataset"], **answered,
        }  # fmt: skip
        picture = shown(content["image"], content["image_path"])
        return pair(origin, picture, self.license, text["question"], text["chosen"], text["rejected"], meta)


def published(inputs: Inputs) -> Path:
    """Raises: InputError if the file is not there."""
    path = inputs.only() / FILE
    if not path.is_file():
        raise InputError(f"{path} is missing; put the published file there, or give from=openbmb/RLHF-V-Dataset")
    return path
