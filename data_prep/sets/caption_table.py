"""A user's own pictures: one table of picture path and caption, split by picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from data_prep.reading.tables import count_lines, csv_rows, tab_rows
from data_prep.rows import FileAt, Inputs, Picture, Row, Skip, Unfit
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
        return count_lines(_only_table(inputs.only()))

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for no or several tables, a table of another form, or a path that leaves the folder."""
        folder = inputs.only()
        table = inputs.note(_only_table(folder))
        inputs.note(folder)
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

    def _row(self, folder: Path, table: str, name: str, found: list[tuple[int, str]]) -> Row:
        origin = Origin(table, found[0][0], name)
        texts = [caption for _, caption in found]
        meta = {"captions": texts} if len(texts) > 1 else None
        picture = Picture(FileAt(folder / name), name)
        return Row(None, origin, (picture,), self.license, caption=texts[0], meta=meta, merged=len(texts) - 1)


def _only_table(folder: Path) -> Path:
    tables = sorted([*folder.glob("*.tsv"), *folder.glob("*.csv")])
    if len(tables) != 1:
        found = ", ".join(path.name for path in tables) or "none"
        raise InputError(f"{folder} must hold exactly one table (captions.tsv or captions.csv), found: {found}; {FORM}")
    return tables[0]


def _lines(table: Path) -> Iterator[tuple[int, str, str]]:
    """(line counted from 0 with the header, path, caption) of each row that is not blank."""
    commas = table.suffix == ".csv"
    for number, read in csv_rows(table) if commas else tab_rows(table):
        if isinstance(read, Unfit):
            raise InputError(
                f"{table} line {number + 1}: {read.detail}; repair it, and save the table as UTF-8. {FORM}"
            )
        fields = read if commas else "\t".join(read).split("\t", 1)  # captions may hold tabs
        if not any(field.strip() for field in fields):
            continue
        if number == 0:
            if fields[0].strip().lower() in HEADERS:
                continue
            if len(fields) < 2:
                raise InputError(f"{table} line 1 has no {'comma' if commas else 'tab'}: {fields[0][:60]!r}; {FORM}")
        if len(fields) > 2:
            raise InputError(f"{table} line {number + 1} has {len(fields)} fields; quote captions with commas. {FORM}")
        name = fields[0].strip()
        if name.startswith(("http://", "https://")):
            raise InputError(f"{table} line {number + 1}: {name[:60]} is an address, not a file in {table.parent}")
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{table} line {number + 1}: {name} leaves {table.parent}; give paths inside that folder")
        yield number, name, fields[1] if len(fields) > 1 else ""
