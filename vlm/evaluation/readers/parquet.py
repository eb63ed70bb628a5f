"""Parquet tables as datasets are published on the hub: text at once, pictures one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from vlm.contracts.benchmark import Picture
from vlm.contracts.errors import InputError
from vlm.evaluation.readers.rows import Row

BATCH = 16  # rows whose pictures are in memory together; a row group may hold a thousand


class Tables:
    """Rows of several parquet files, in their order. texts, pictures: the columns that are read.

    A picture is identified by the sha256 of its bytes, since the same picture stands in several rows.
    Raises: InputError for a file that is no parquet table, or lacks a column.
    """

    def __init__(self, paths: Sequence[Path], texts: Sequence[str], pictures: Sequence[str] = ()) -> None:
        self.texts, self.pictures = list(texts), list(pictures)
        self._files = [_opened(path, [*texts, *pictures]) for path in paths]
        self._paths = list(paths)
        self._window = _Window(self._files)

    def __len__(self) -> int:
        return sum(file.metadata.num_rows for file in self._files)

    def __iter__(self) -> Iterator[Row]:
        """Rows are numbered from 1 in each file, as people count them."""
        for number, file in enumerate(self._files):
            counted = 0
            for group in range(file.num_row_groups):
                batches = file.iter_batches(BATCH, row_groups=[group], columns=[*self.texts, *self.pictures])
                first = 0
                for batch in batches:
                    texts = batch.select(self.texts).to_pylist() if self.texts else [{}] * batch.num_rows
                    for offset, values in enumerate(texts):
                        place = number, group, first + offset
                        seen = {name: self._picture(batch[name], offset, name, place) for name in self.pictures}
                        counted += 1
                        yield Row(f"{self._paths[number]} row {counted}", values, seen)
                    first += batch.num_rows

    def _picture(self, column: pa.Array, offset: int, name: str, place: tuple[int, int, int]) -> Picture | None:
        data = _bytes(column, offset)
        if data is None:
            return None
        return Picture(hashlib.sha256(data).hexdigest(), partial(self._window.read, name, *place))


@dataclass
class _Window:
    """The rows around the one that was read last: reading on in order decodes each row once."""

    files: Sequence[parquet.ParquetFile]
    place: tuple[str, int, int] | None = None
    batches: Any = None
    first: int = 0
    column: pa.Array | None = None

    def read(self, name: str, number: int, group: int, row: int) -> bytes:
        if self.place != (name, number, group) or row < self.first:
            self.place, self.first, self.column = (name, number, group), 0, None
            self.batches = self.files[number].iter_batches(BATCH, row_groups=[group], columns=[name])
        while self.column is None or row >= self.first + len(self.column):
            self.first += 0 if self.column is None else len(self.column)
            self.column = next(self.batches)[name]
        found = _bytes(self.column, row - self.first)
        assert found is not None  # a picture is made for cells with bytes only
        return found.to_pybytes()


def _bytes(column: pa.Array, offset: int) -> pa.Buffer | None:
    """Of {bytes, path}, as `datasets` writes pictures, or of bytes alone."""
    cell = column[offset]
    if pa.types.is_struct(column.type) and cell.is_valid:
        cell = cell["bytes"]
    return cell.as_buffer() if cell.is_valid else None


def _opened(path: Path, columns: Sequence[str]) -> parquet.ParquetFile:
    try:
        file = parquet.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no whole parquet table ({error}); get it again") from error
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)} (found {', '.join(file.schema_arrow.names)}); it is not of the "
            "published form"
        )
    return file
