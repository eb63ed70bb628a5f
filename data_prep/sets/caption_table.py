"""A user's own pictures: one table of picture path and caption, split by picture."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from data_prep.rows import Inputs, Picture, Row, Skip
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

HEADERS = {"image", "picture", "file", "filename", "file_name", "path", "image_path"}  # first field of a header line
FORM = "each row is: picture path relative to the folder, TAB (in a .csv: comma), caption"


@dataclass(frozen=True)
class CaptionTable:
    """Rows of one .tsv or .csv in the folder; a picture that stands in several rows keeps all its captions.

    license: what the user says of the pictures.
    """

    __pydantic_config__: ClassVar = STRICT
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return _only_table(inputs.only()).read_bytes().count(b"\n")

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for no or several tables, a table of another form, or a path that leaves the folder."""
        folder = inputs.only()
        table = inputs.note(_only_table(folder))
        captions: dict[str, list[tuple[int, str]]] = {}  # path -> (row, caption)
        for number, name, text in _lines(table):
            origin = Origin(table.name, number, name)
            caption = " ".join(text.split())
            if not name:
                yield Skip(None, origin, "row_malformed", f"no path; {FORM}")
            elif not caption:
                yield Skip(None, origin, "text_empty", f"no caption; {FORM}")
            elif any(caption == other for _, other in captions.get(name, ())):
                yield Skip(None, origin, "dup_exact", f"{name} with this caption stands in the table before")
            else:
                captions.setdefault(name, []).append((number, caption))
        for name, found in captions.items():
            yield self._row(folder, table.name, name, found)

    def _row(self, folder: Path, table: str, name: str, found: list[tuple[int, str]]) -> Row | Skip:
        origin = Origin(table, found[0][0], name)
        path = folder / name
        if not path.is_file():
            return Skip(None, origin, "media_missing", f"there is no file {path}", rows=len(found))
        texts = [caption for _, caption in found]
        meta = {"captions": texts} if len(texts) > 1 else None
        picture = Picture(path.read_bytes(), name)
        return Row(None, origin, (picture,), self.license, caption=texts[0], meta=meta, merged=len(texts) - 1)


def _only_table(folder: Path) -> Path:
    tables = sorted([*folder.glob("*.tsv"), *folder.glob("*.csv")])
    if len(tables) != 1:
        found = ", ".join(path.name for path in tables) or "none"
        raise InputError(f"{folder} must hold exactly one table (captions.tsv or captions.csv), found: {found}; {FORM}")
    return tables[0]


def _lines(table: Path) -> Iterator[tuple[int, str, str]]:
    """(row counted from 0 with the header, path, caption) of each line that is not blank."""
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = table.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{table} row {row} is not UTF-8 ({error.reason}); save the table as UTF-8") from error
    # A tab-separated table has no quoting: captions may hold quotation marks.
    lines, commas = text.splitlines(), table.suffix == ".csv"
    split = csv.reader(lines) if commas else (line.split("\t", 1) for line in lines)
    for number, fields in enumerate(split):
        if not any(field.strip() for field in fields):
            continue
        if number == 0:
            if fields[0].strip().lower() in HEADERS:
                continue
            if len(fields) < 2:
                raise InputError(f"{table} row 1 has no {'comma' if commas else 'tab'}: {lines[0][:60]!r}; {FORM}")
        if len(fields) > 2:
            raise InputError(f"{table} row {number + 1} has {len(fields)} fields; quote captions with commas. {FORM}")
        name = fields[0].strip()
        if name.startswith(("http://", "https://")):
            raise InputError(f"{table} row {number + 1}: {name[:60]} is an address, not a file in {table.parent}")
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{table} row {number + 1}: {name} leaves {table.parent}; give paths inside that folder")
        yield number, name, fields[1] if len(fields) > 1 else ""
