"""Which rows of a prepared split should go, and why; the findings lie on the disk, so any number of rows fits."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_prep.overlaps.overlap import Hit, Overlap
from data_prep.overlaps.questions import questions
from data_prep.pictures.clips import middle_of
from data_prep.pictures.media import Stored, reread
from vlm.data.canonical import Record, grouped
from vlm.data.shards import ShardSet

SCHEMA = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;
CREATE TABLE gone (row INTEGER PRIMARY KEY, reason TEXT, found TEXT, detail TEXT);
CREATE TABLE firsts (same BLOB PRIMARY KEY, row INT) WITHOUT ROWID;
CREATE TABLE captions (number INTEGER PRIMARY KEY, first INT, row INT, caption TEXT, UNIQUE (first, caption));
"""


@dataclass(frozen=True)
class Looked:
    """What one row shows. hit: of an evaluation set.   same: equal for rows that are one, of its captions if it has any."""

    row: int
    hit: Hit | None
    same: bytes | None
    captions: list[str]


class Look:
    """One row against evaluation sets; it can be sent to other processes.

    policy: "image" = a picture of an evaluation set is enough, "pair" = the same question has to be asked there too.
    inside: whether rows are also compared with one another.
    """

    def __init__(self, overlap: Overlap, policy: Literal["image", "pair"], inside: bool) -> None:
        self.overlap, self.policy, self.inside = overlap, policy, inside
        self._splits: dict[str, ShardSet] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_splits": {}}

    def __call__(self, row: int, record: Record, payloads: list[bytes]) -> Looked:
        pictures: list[tuple[str, Stored]] = []
        shown: list[str] = []  # what makes two media one
        for medium, files in grouped(record, payloads):
            name, is_still = f"{record.key}.{medium.member}", medium.type == "image"
            pictures.append((medium.orig, reread(files[0], name) if is_still else middle_of(medium, files, name)))
            shown.append(pictures[-1][1].pixels if is_still and self.inside else medium.sha256)
        hit = self._hit(record, pictures)
        same = self._same(record, shown) if self.inside and hit is None else None
        captions = (record.meta or {}).get("captions") or [record.caption] if record.caption is not None else []
        return Looked(row, hit, same, captions)

    def _hit(self, record: Record, pictures: list[tuple[str, Stored]]) -> Hit | None:
        asked = questions(record)
        for name, stored in pictures:
            for hit in self.overlap.hits(name, stored):
                if self.policy == "image" or asked & self._asked(hit):
                    return hit
        return next(self.overlap.same_choices(record), None)

    def _asked(self, hit: Hit) -> set[str]:
        """What the evaluation set asks about the picture."""
        if hit.row is None:
            return set()
        if hit.table not in self._splits:
            origin = next(table.origin for table in self.overlap.tables if table.name == hit.table)
            self._splits[hit.table] = ShardSet(origin)
        return questions(self._splits[hit.table].read(hit.row)[0])

    def _same(self, record: Record, shown: list[str]) -> bytes | None:
        """Of the pictures of a caption; of pictures and texts of all else."""
        if record.caption is not None:
            return _digest(shown) if shown else None
        return _digest([shown, record.messages, record.chosen, record.rejected, record.answer])


class Verdicts:
    """What is to become of every row, in a SQLite file. Rows are noted in their order."""

    def __init__(self, path: Path) -> None:
        self._base = sqlite3.connect(path, isolation_level=None)
        self._base.executescript(SCHEMA)
        self.removed: Counter[str] = Counter()  # reason -> rows
        self.found: Counter[str] = Counter()  # "pope/test by id" -> rows
        self.merged = 0

    def note(self, looked: Looked) -> None:
        if looked.hit is not None:
            found = f"{looked.hit.table} by {looked.hit.by}"
            self.found[found] += 1
            self._remove(looked.row, "eval_overlap", found, f"{found}: {looked.hit.detail}")
        elif looked.same is not None:
            self._compare(looked.row, looked.same, looked.captions)

    def gone(self) -> Iterator[tuple[int, str, str]]:
        """Row, reason and detail of those that go, in order."""
        yield from self._base.execute("SELECT row, reason, detail FROM gone ORDER BY row")

    def further_captions(self, row: int) -> list[str]:
        """Those of later rows with the same picture."""
        asked = "SELECT caption FROM captions WHERE first = ? AND row != first ORDER BY number"
        return [caption for (caption,) in self._base.execute(asked, (row,))]

    def examples(self, most: int) -> list[str]:
        """The first rows that go, for people."""
        asked = "SELECT row, reason, detail FROM gone ORDER BY row LIMIT ?"
        return [f"row {row}: {reason}: {detail}" for row, reason, detail in self._base.execute(asked, (most,))]

    def close(self) -> None:
        self._base.close()

    def _compare(self, row: int, same: bytes, captions: list[str]) -> None:
        found = self._base.execute("SELECT row FROM firsts WHERE same = ?", (same,)).fetchone()
        first = row if found is None else found[0]
        if found is None:
            self._base.execute("INSERT INTO firsts VALUES (?, ?)", (same, row))
        new = 0
        for caption in captions:
            noted = (first, row, caption)
            new += self._base.execute(
                "INSERT OR IGNORE INTO captions (first, row, caption) VALUES (?, ?, ?)", noted
            ).rowcount
        if found is None:
            return
        if new:
            self._base.execute("INSERT INTO gone VALUES (?, '', '', ?)", (row, f"merged into row {first}"))
            self.merged += 1
        else:
            self._remove(row, "dup_exact", "", f"the same as row {first}")

    def _remove(self, row: int, reason: str, found: str, detail: str) -> None:
        self._base.execute("INSERT INTO gone VALUES (?, ?, ?, ?)", (row, reason, found, detail))
        self.removed[reason] += 1


def _digest(content: Any) -> bytes:
    return hashlib.sha256(repr(content).encode("utf-8", "backslashreplace")).digest()
