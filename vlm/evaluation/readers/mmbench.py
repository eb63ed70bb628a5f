"""MMBench: a TSV with pictures in base64, each question asked once for every rotation of its options."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from vlm.contracts.benchmark import Picture, Question
from vlm.contracts.errors import InputError
from vlm.evaluation.readers.files import Files
from vlm.evaluation.readers.rows import LETTERS, Ids, Row, check_counts, letter_named
from vlm.evaluation.readers.tsv import cell, rows_with_places

ROLL = 1_000_000  # added to the index for each rotation
OPTIONS = "ABCD"
COLUMNS = ("index", "question", "hint", *OPTIONS, "answer", "category", "l2-category", "image")
POINTER = 12  # characters; a picture is far longer than the number of another row


@dataclass(frozen=True)
class Entry:
    """A row without its picture. at: where its line begins in the file.   picture: identity of what it shows."""

    row: Row
    index: int
    options: tuple[str, ...]
    gold: str
    at: int
    picture: str


@dataclass(frozen=True)
class MmBench:
    """Rotations that lie in the file are checked; a file without any gets them made here, options moved by one each.

    The field `context` is the hint and a line feed, empty without a hint. A group is a question with its rotations.
    expected: questions, rolls (rows with all rotations).   checksums: table -> sha256.
    """

    folder: str
    table: str = "mmbench_dev_en.tsv"
    expected: dict[str, int] | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return [self.table]

    def questions(self) -> Iterator[Question]:
        """Raises: InputError, also for a missing rotation, or one with other options."""
        (path,) = Files(self.folder, self.checksums).tables(self.files())
        entries, pictures = _read(path)
        groups: dict[int, dict[int, Entry]] = defaultdict(dict)
        for entry in entries.values():
            groups[entry.index % ROLL][entry.index // ROLL] = entry
        made = all(set(rolls) == {0} for rolls in groups.values())
        if not made:
            for rolls in groups.values():
                _check_rolls(rolls)
        rolls = sum(len(next(iter(group.values())).options) for group in groups.values())
        check_counts(self.folder, {"questions": len(groups), "rolls": rolls}, self.expected)
        ids = Ids()
        for number, group in groups.items():
            first = group[0]
            for roll in range(len(first.options)):
                yield _question(_rolled(first, roll) if made else group[roll], number, pictures, ids)
        ids.tell()


def _question(entry: Entry, group: int, pictures: dict[str, Picture], ids: Ids) -> Question:
    row, hint = entry.row, entry.row.text("hint", empty=True)
    reference = {
        "options": dict(zip(OPTIONS, entry.options, strict=False)), "gold": entry.gold, "index": entry.index,
        "category": row.text("category"), "l2-category": row.text("l2-category"),
    }  # fmt: skip
    fields = {"hint": hint, "context": f"{hint}\n" if hint else ""}
    id = ids.new(row, str(entry.index), entry.options)
    picture = pictures[entry.picture]
    return Question(id, str(group), row.text("question"), reference, (picture,), entry.options, fields)


def _rolled(first: Entry, roll: int) -> Entry:
    """Options moved to the front by `roll` places, those in front to the end; the right one moves along."""
    count = len(first.options)
    options = first.options[roll:] + first.options[:roll]
    gold = LETTERS[(LETTERS.index(first.gold) - roll) % count]
    return Entry(first.row, first.index + roll * ROLL, options, gold, first.at, first.picture)


def _check_rolls(rolls: dict[int, Entry]) -> None:
    some = next(iter(rolls.values()))
    first = rolls.get(0, some)
    wanted = set(range(len(first.options)))
    if set(rolls) != wanted:
        found = ", ".join(str(entry.index) for entry in rolls.values())
        raise some.row.fault(f"question {some.index % ROLL} has the rows {found}, not one for each of its options")
    right = first.options[LETTERS.index(first.gold)]
    for entry in rolls.values():
        same = sorted(entry.options) == sorted(first.options)
        if not same or entry.options[LETTERS.index(entry.gold)] != right:
            raise entry.row.fault(f"it is no rotation of row {first.index}: its options or its answer differ")
    if len({entry.options for entry in rolls.values()}) < len(rolls) and len(set(first.options)) > 1:
        raise first.row.fault(f"two rows of question {first.index} have the same order of options")


def _read(path: Path) -> tuple[dict[int, Entry], dict[str, Picture]]:
    """Entries by index, and the pictures by identity; no picture stays in memory."""
    entries: dict[int, Entry] = {}
    pictures: dict[str, Picture] = {}
    places: dict[int, tuple[int, str]] = {}  # index -> where its own picture lies, and what it is
    waiting: list[tuple[Row, int, int]] = []
    for row, at in rows_with_places(path, COLUMNS):
        index = _number(row, row.text("index"))
        if index in entries:
            raise row.fault(f"index {index} is there a second time")
        image = row.text("image")
        slim = Row(row.where, {name: value for name, value in row.values.items() if name != "image"})
        if len(image) <= POINTER and image.isdecimal():
            waiting.append((slim, index, int(image)))
            entries[index] = _entry(slim, index, at, "")
            continue
        digest = hashlib.sha256(_decoded(row, image)).hexdigest()
        places[index] = at, digest
        pictures.setdefault(digest, Picture(digest, partial(_picture_at, path, at)))
        entries[index] = _entry(slim, index, at, digest)
    for row, index, other in waiting:
        if other not in places:
            raise row.fault(f"its picture is that of row {other}, which has none of its own or is not there")
        entries[index] = _entry(row, index, entries[index].at, places[other][1])
    if not entries:
        raise InputError(f"{path} holds no questions; get it again")
    return entries, pictures


def _entry(row: Row, index: int, at: int, picture: str) -> Entry:
    cells = [row.text(name, empty=True) for name in OPTIONS]
    count = next((place for place, cell in enumerate(cells) if not cell), len(cells))
    if any(cells[count:]):
        raise row.fault(f"option {OPTIONS[count]} is empty, but a later one is not")
    gold = letter_named(row, cells[:count], row.text("answer"))
    return Entry(row, index, tuple(cells[:count]), gold, at, picture)


def _picture_at(path: Path, at: int) -> bytes:
    return base64.b64decode(cell(path, at, "image"))


def _decoded(row: Row, image: str) -> bytes:
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise row.fault(f"image is neither base64 ({error}) nor the number of another row") from error


def _number(row: Row, text: str) -> int:
    if not text.isdecimal():
        raise row.fault(f"index is {text!r:.40}, not a number")
    return int(text)
