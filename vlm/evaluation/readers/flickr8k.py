"""Flickr8k: photographs with five captions each, in the authors' files or in the hub's copy."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vlm.contracts.benchmark import Question
from vlm.contracts.errors import InputError
from vlm.evaluation.readers.files import Files
from vlm.evaluation.readers.parquet import Tables
from vlm.evaluation.readers.published_tables import PublishedTables
from vlm.evaluation.readers.rows import check_counts

CAPTIONS = 5  # a picture
COLUMNS = tuple(f"caption_{number}" for number in range(CAPTIONS))


@dataclass(frozen=True)
class Flickr8k:
    """table: Flickr8k.token.txt, or captions.txt with the header image,caption.   names: list of the split's pictures.

    pictures: their folder.   An id is the name of the picture; its gold data are all its captions.
    expected: pictures, captions.   checksums: table -> sha256.
    """

    folder: str
    table: str = "Flickr8k.token.txt"
    names: str = "Flickr_8k.testImages.txt"
    pictures: str = "Flicker8k_Dataset"
    expected: dict[str, int] | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return [self.table, self.names]

    def questions(self) -> Iterator[Question]:
        """Raises: InputError, also for a picture of the list without captions."""
        files = Files(self.folder, self.checksums)
        table, listed = files.tables(self.files())
        names = listed.read_text("utf-8").split()
        if len(set(names)) < len(names):
            raise InputError(f"{listed} names a picture twice; get it again")
        captions: dict[str, list[str]] = {name: [] for name in names}
        for name, text in (
            _token_lines(table) if table.suffix == ".txt" and "token" in table.name else _csv_lines(table)
        ):
            if name in captions:
                captions[name].append(text)
        bare = [name for name, texts in captions.items() if not texts]
        if bare:
            raise InputError(f"{table} has no caption of {bare[0]} and {len(bare) - 1:,} others; get both lists again")
        found = {"pictures": len(names), "captions": sum(map(len, captions.values()))}
        check_counts(self.folder, found, self.expected)
        files.present(f"{self.pictures}/{name}" for name in names)
        for name, texts in captions.items():
            yield Question(name, name, "", texts, (files.picture(f"{self.pictures}/{name}"),))


@dataclass(frozen=True)
class Flickr8kHub(PublishedTables):
    """The hub's copy: a parquet row a picture. Rows have no id: it is their place from 0.

    tables: a pattern.   expected: pictures, captions.   checksums: table -> sha256.
    """

    def questions(self) -> Iterator[Question]:
        """Raises: InputError."""
        paths = self.paths()
        count = len(Tables(paths, COLUMNS))
        check_counts(self.folder, {"pictures": count, "captions": count * CAPTIONS}, self.expected)
        for number, row in enumerate(Tables(paths, COLUMNS, ["image"])):
            texts, picture = [row.text(name) for name in COLUMNS], row.picture("image")
            yield Question(str(number), picture.id, "", texts, (picture,))


def _token_lines(path: Path) -> Iterator[tuple[str, str]]:
    """`name.jpg#k<TAB>caption`."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        name, mark, rest = line.partition("#")
        which, tab, text = rest.partition("\t")
        if line and (not mark or not tab or not which.isdecimal() or not text.strip()):
            raise InputError(f"{path} row {number}: {line!r:.60} is not name.jpg#k, TAB, caption; get it again")
        if line:
            yield name, text


def _csv_lines(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        for number, cells in enumerate(csv.reader(stream), 1):
            if len(cells) != 2 or (number == 1 and cells != ["image", "caption"]):
                raise InputError(f"{path} row {number} is {cells!r:.60}; image,caption is expected; get it again")
            if number > 1:
                yield cells[0], cells[1]
