"""A user's own folder of pictures: captions beside them, in a table of file names, or the names of their folders."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from data_prep.reading.tables import LONGEST, csv_rows, json_rows
from data_prep.rows import FileAt, Inputs, Picture, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

log = logging.getLogger(__name__)
Captions = Literal["text", "metadata", "folders"]
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm")
TABLES = ("metadata.jsonl", "metadata.csv")  # as Hugging Face's imagefolder calls them
LEFT_BEHIND = {"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini", "lost+found"}  # by archives and file managers
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
FORM = '{"file_name": "path of a picture, from the table\'s folder", "text": "its caption"}'


@dataclass(frozen=True)
class Folder:
    """All pictures below the folder, sorted by folder and name; other files are left alone and told in the log.

    license: what the user says of the pictures.   captions: "text" = a .txt of the same name beside each picture,
    "metadata" = metadata.jsonl or metadata.csv with file_name and text, "folders" = the name of the picture's folder
    ("_" becomes a space); None = what is there.
    """

    __pydantic_config__: ClassVar = STRICT
    license: str
    captions: Captions | None

    def total(self, inputs: Inputs) -> int | None:
        return sum(path.suffix.lower() in ENDINGS for path in _files(inputs.only()))

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for splits, no pictures, captions of two kinds or none, and what leads out of the folder."""
        home = inputs.note(inputs.only())
        _refuse_splits(home)
        captions = self.captions or _found(home)
        told = {"text": "text files of the same name", "metadata": "metadata tables", "folders": "names of folders"}
        log.info("captions of %s are taken from %s", home, told[captions])
        if captions == "metadata":
            yield from self._metadata(inputs)
            return
        read = _text if captions == "text" else _class_name
        for number, path in enumerate(_pictures(home)):
            name = path.relative_to(home).as_posix()
            try:
                yield self._row(home, Origin(name, number, name), path, read(home, path))
            except Unfit as fault:
                yield Skip(None, Origin(name, number, name), fault.reason, fault.detail)

    def _row(self, home: Path, origin: Origin, path: Path, text: str, meta: dict[str, Any] | None = None) -> Row:
        picture = Picture(FileAt(path), path.relative_to(home).as_posix())
        return Row(None, origin, (picture,), self.license, caption=" ".join(text.split()), meta=meta or None)

    def _metadata(self, inputs: Inputs) -> Iterator[Row | Skip]:
        home, listed = inputs.only(), set[str]()
        tables = [path for path in _files(home) if path.name in TABLES]
        if not tables:
            raise InputError(f"{home} has no {' or '.join(TABLES)}; source.reader.captions=null takes what is there")
        for table in tables:
            name = inputs.note(table).relative_to(home).as_posix()
            for number, entry in _table_rows(table):
                origin = Origin(name, number, f"row {number}")
                try:
                    path, text, meta = _entry(home, table, number, entry)
                    listed.add(path.relative_to(home).as_posix())
                    yield self._row(home, Origin(name, number, path.relative_to(home).as_posix()), path, text, meta)
                except Unfit as fault:
                    yield Skip(None, origin, fault.reason, fault.detail)
        for number, path in enumerate(_pictures(home)):
            name = path.relative_to(home).as_posix()
            if name not in listed:
                yield Skip(None, Origin(name, number, name), "annotation_missing", "no metadata table names it")


def _refuse_splits(home: Path) -> None:
    tops = {path.name for path in home.iterdir() if path.is_dir() and _wanted(path.name)}
    if tops and tops <= SPLITS:
        raise InputError(
            f"{home} is divided into {', '.join(sorted(tops))}; these are not mixed. Prepare each by itself, with its own "
            f"from=, as {home / min(tops)}, and out="
        )


def _found(home: Path) -> Captions:
    """What there is. Folders count only where there is nothing else: people also use them to keep order."""
    names: set[str] = set()
    texts: list[Path] = []
    tables: list[Path] = []
    nested = False
    for path in _files(home):
        if path.suffix.lower() in ENDINGS:
            names.add(str(path.with_suffix("")))
            nested = nested or path.parent != home
        elif path.suffix == ".txt":
            texts.append(path)
        elif path.name in TABLES:
            tables.append(path)
    text = next((path for path in texts if str(path.with_suffix("")) in names), None)
    if text and tables:
        raise InputError(
            f"{home} has captions of two kinds: {text.relative_to(home)} beside a picture, and {tables[0].relative_to(home)}; "
            "choose with source.reader.captions=text or source.reader.captions=metadata"
        )
    if text or tables or nested:
        return "text" if text else "metadata" if tables else "folders"
    raise InputError(
        f"{home} has {len(names)} pictures and no captions: put a .txt of the same name beside each picture, or a "
        f"metadata.jsonl with {FORM} a line, or pictures of one class into one sub-folder"
    )


def _files(home: Path) -> Iterator[Path]:
    """All files, folder by folder, each sorted by name; hidden ones and those that other programs leave are none.

    Raises: InputError for a symbolic link that leads out of `home`.
    """
    root = home.resolve()
    for folder, inside, names in os.walk(home):
        for name in filter(_wanted, (*inside, *names)):
            path = Path(folder, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise InputError(f"{path} is a link to {path.readlink()}, out of {home}; put the file itself there")
        inside[:] = sorted(name for name in inside if _wanted(name))
        yield from (Path(folder, name) for name in sorted(names) if _wanted(name))


def _wanted(name: str) -> bool:
    return not name.startswith(".") and name not in LEFT_BEHIND


def _pictures(home: Path) -> Iterator[Path]:
    """Raises: InputError if the folder holds none."""
    count, others = 0, Counter[str]()
    for path in _files(home):
        if path.suffix.lower() in ENDINGS:
            count += 1
            yield path
        elif path.suffix != ".txt" and path.name not in TABLES:
            others[path.suffix] += 1
    if count == 0:
        raise InputError(f"{home} has no pictures ({', '.join(ENDINGS)})")
    if others:
        left = ", ".join(f"{n} {suffix or 'without an ending'}" for suffix, n in sorted(others.items()))
        log.warning("files in %s that are neither pictures nor captions were left alone: %s", home, left)


def _text(home: Path, path: Path) -> str:
    beside = path.with_suffix(".txt")
    try:
        if beside.stat().st_size > LONGEST:
            raise Unfit("text_long", f"{beside.name} has more than {LONGEST >> 20} MiB")
        return beside.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise Unfit("annotation_missing", f"no {beside.relative_to(home)}") from error
    except UnicodeDecodeError as error:
        raise Unfit("row_malformed", f"{beside.relative_to(home)} is not UTF-8 at byte {error.start}") from error


def _class_name(home: Path, path: Path) -> str:
    if path.parent == home:
        raise Unfit("annotation_missing", "lies in no sub-folder, whose name would be its class")
    return path.parent.name.replace("_", " ")


def _table_rows(table: Path) -> Iterator[tuple[int, Any]]:
    """(row from 0, record or Unfit). Raises: InputError if the first record has no file_name or text."""
    rows = json_rows(table, FORM) if table.suffix == ".jsonl" else _csv_records(table)
    for place, (number, entry) in enumerate(rows):
        if place == 0 and not (isinstance(entry, dict) and {"file_name", "text"} <= entry.keys()):
            found = ", ".join(map(str, entry)) if isinstance(entry, dict) else repr(entry)[:80]
            raise InputError(f"{table} row {number} has {found or 'nothing'}; a row is {FORM}")
        yield number, entry


def _csv_records(table: Path) -> Iterator[tuple[int, Any]]:
    header: list[str] | None = None
    for number, fields in csv_rows(table):
        if header is None:
            if isinstance(fields, Unfit) or not {"file_name", "text"} <= set(fields):
                raise InputError(f"{table} line 1 is {fields}; expected a header with file_name and text")
            header = fields
        elif isinstance(fields, Unfit):
            yield number, fields
        elif len(fields) != len(header):
            if fields:
                detail = f"{len(fields)} fields, the header has {len(header)}; quote captions with commas"
                yield number, Unfit("row_malformed", detail)
        else:
            yield number, dict(zip(header, fields, strict=True))


def _entry(home: Path, table: Path, number: int, entry: Any) -> tuple[Path, str, dict[str, Any]]:
    """Picture, caption and further columns. Raises: Unfit; InputError for a path that leaves the folder."""
    if isinstance(entry, Unfit):
        raise entry
    name = entry.get("file_name") if isinstance(entry, dict) else None
    text = entry.get("text") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name:
        raise Unfit("row_malformed", f"file_name is {name!r}; a row is {FORM}")
    inside = os.path.normpath(os.path.join(table.parent.relative_to(home), name))
    if os.path.isabs(inside) or inside.split("/")[0] == "..":
        raise InputError(f"{table} row {number}: {name[:80]} leaves {home}; give paths inside that folder")
    if text is None:
        raise Unfit("annotation_missing", f"{name} has no text")
    if not isinstance(text, str):
        raise Unfit("row_malformed", f"text of {name} is {str(text)[:60]}, not a text")
    return home / inside, text, {key: value for key, value in entry.items() if key not in ("file_name", "text")}
