"""Tables of tab-separated text with very long cells: read once for their text, later one cell at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlm.contracts.errors import InputError
from vlm.evaluation.readers.rows import Row

LONGEST = 1 << 30  # characters of a cell; pictures in base64 are far over the limit that csv sets itself


def rows_with_places(path: Path, columns: Sequence[str]) -> Iterator[tuple[Row, int]]:
    """Rows, and where in the file each begins, in bytes; a quoted cell may hold line feeds.

    columns: those that must be there.   Raises: InputError that names the row.
    """
    csv.field_size_limit(LONGEST)
    with path.open("rb") as stream:
        lines = _Lines(stream)
        reader = csv.reader(lines, delimiter="\t", strict=True)
        try:
            names = next(reader, [])
            missing = [name for name in columns if name not in names]
            if missing:
                raise InputError(
                    f"{path} has no column {', '.join(missing)} (found {', '.join(names)[:200]}); it is not of the "
                    "published form"
                )
            for number, begin, cells in _with_places(reader, lines):
                if len(cells) != len(names):
                    raise InputError(f"{path} row {number} has {len(cells)} cells, not {len(names)}; get it again")
                yield Row(f"{path} row {number}", dict(zip(names, cells, strict=True))), begin
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path} is no table of tab-separated text ({error}); get it again") from error


def cell(path: Path, at: int, name: str) -> str:
    """One cell of the row that begins at this byte."""
    with path.open("rb") as stream:
        names = next(csv.reader(_Lines(stream), delimiter="\t"))
        stream.seek(at)
        cells = next(csv.reader(_Lines(stream), delimiter="\t"))
    return cells[names.index(name)]


def _with_places(reader: Iterator[list[str]], lines: _Lines) -> Iterator[tuple[int, int, list[str]]]:
    begin = lines.position
    for number, cells in enumerate(reader, 1):
        yield number, begin, cells
        begin = lines.position


class _Lines:
    """Lines as text, with the position in bytes behind the last one."""

    def __init__(self, stream: Iterator[bytes]) -> None:
        self._stream, self.position = stream, 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._stream)
        self.position += len(line)
        return line.decode("utf-8")
