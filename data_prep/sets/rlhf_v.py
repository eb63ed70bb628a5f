"""RLHF-V: answers of a model beside their correction by people, in one parquet file with JSON inside strings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pyarrow import parquet

from data_prep.pairs import changed, pair, shown
from data_prep.reading.tables import parquet_rows
from data_prep.rows import Inputs, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.ranges import PositiveInt
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

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
        return count(published(inputs))

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for a missing or foreign file, another number of pairs, or JSON of another form."""
        path = published(inputs)
        found = count(path)
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
        diff_chosen, diff_rejected = changed(text["chosen"], text["rejected"])
        meta = {
            "diff_chosen": diff_chosen, "diff_rejected": diff_rejected,
            "origin_dataset": content["origin_dataset"], **answered,
        }  # fmt: skip
        picture = shown(content["image"], content["image_path"])
        return pair(origin, picture, self.license, text["question"], text["chosen"], text["rejected"], meta)


def json_object(origin: Origin, column: str, text: str | None, keys: tuple[str, ...]) -> dict[str, str]:
    """A JSON string with exactly these keys and texts behind them.

    Text in single quotes comes from a re-upload that printed Python objects; it is refused, never evaluated.
    Raises: InputError for it, for other keys, or if the first row is no JSON; Unfit("row_malformed").
    """
    where, form = f"{origin.file} row {origin.row} (from 0): {column}", ", ".join(f'"{key}": "…"' for key in keys)
    try:
        content = json.loads(text or "")
    except (ValueError, RecursionError) as error:
        if origin.row == 0 or (text or "").lstrip().startswith("{'"):
            raise InputError(
                f"{where} is {text!r:.60}, not JSON of the form {{{form}}} ({error}); get the published file"
            ) from error
        raise Unfit("row_malformed", f"{column} is no JSON: {error}") from error
    if not isinstance(content, dict) or set(content) != set(keys):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{where} has {found}; exactly {{{form}}} is expected; get the published file")
    for key, value in content.items():
        if not isinstance(value, str):
            raise Unfit("row_malformed", f"{key} in {column} is {value!r:.60}, not a text")
    return content


def published(inputs: Inputs) -> Path:
    """Raises: InputError if the file is not there."""
    path = inputs.only() / FILE
    if not path.is_file():
        raise InputError(f"{path} is missing; put the published file there, or give from=openbmb/RLHF-V-Dataset")
    return path


def count(path: Path) -> int:
    """Rows of a parquet file by its footer. Raises: InputError if it has none."""
    try:
        return parquet.read_metadata(path).num_rows
    except pa.ArrowException as error:
        raise InputError(f"{path} is no complete parquet file ({error}); get it again") from error
