"""What an unfinished preparation knows, in one file: how far it came, and which pictures and texts it has seen."""

from __future__ import annotations

import hashlib
import json
import shlex
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_prep.work import Same
from vlm.contracts.errors import InputError

FILE = "journal.sqlite"
SCHEMA = """
CREATE TABLE IF NOT EXISTS pictures (digest BLOB PRIMARY KEY, first TEXT, times INT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS texts (digest BLOB PRIMARY KEY, begins TEXT, times INT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS samples (digest BLOB PRIMARY KEY, first TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (digest BLOB, chosen INT, PRIMARY KEY (digest, chosen)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, content TEXT) WITHOUT ROWID;
"""
CACHE_KB = 65_536
SHOWN = 100  # characters of a repeated text


class Journal:
    """A SQLite file in the set's folder: flat memory for any number of rows.

    What is noted counts from the next `commit` on, together with the state that is given there: after a crash both
    are as they were at the last one. Raises: OSError if the disk refuses; InputError if the file is damaged.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / FILE
        with self._told():
            self._base = sqlite3.connect(self.path, isolation_level=None)
            self._base.execute(f"PRAGMA cache_size=-{CACHE_KB}")
            self._base.executescript(SCHEMA)
            self._base.execute("BEGIN")

    def state(self) -> dict[str, Any] | None:
        """What the last commit was given, None at the beginning."""
        with self._told():
            found = dict(self._base.execute("SELECT name, content FROM state").fetchall())
        if not found:
            return None
        if _digest(found["state"]) != found.get("sha256"):
            raise InputError(f"{self.path} is damaged")
        return json.loads(found["state"])

    def commit(self, state: dict[str, Any]) -> None:
        """Everything noted so far, and the state."""
        with self._told():
            text = json.dumps(state)
            rows = [("state", text), ("sha256", _digest(text))]
            self._base.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", rows)
            self._base.execute("COMMIT")
            self._base.execute("BEGIN")

    def picture(self, same: Same, origin: str) -> str | None:
        """Notes a first picture. Returns: which row had it first, None if this one."""
        if same.picture is None:
            return None
        return self._seen("pictures", "first", same.picture, origin)

    def text(self, same: Same, begins: str) -> bool:
        """Notes a row's texts. Returns: whether they were seen before."""
        return self._seen("texts", "begins", same.text, begins[:SHOWN]) is not None

    def note(self, digest: str, origin: str) -> None:
        """Notes pictures and texts together."""
        with self._told():
            self._base.execute("INSERT INTO samples VALUES (?, ?)", (bytes.fromhex(digest), origin))

    def had(self, digest: str) -> str | None:
        """Which row had these pictures and texts first."""
        with self._told():
            found = self._base.execute("SELECT first FROM samples WHERE digest = ?", (bytes.fromhex(digest),))
            row = found.fetchone()
        return None if row is None else row[0]

    def contradicts(self, same: Same) -> bool:
        """Notes a pair's answers. Returns: whether one was rejected before and is chosen now, or the other way round."""
        if same.answers is None:
            return False
        found = False
        with self._told():
            for digest, chosen in zip(same.answers, (1, 0), strict=True):
                key = bytes.fromhex(digest)
                other = self._base.execute("SELECT 1 FROM answers WHERE digest = ? AND chosen = ?", (key, 1 - chosen))
                found = found or other.fetchone() is not None
                self._base.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, chosen))
        return found

    def commonest_texts(self, most: int) -> list[dict[str, Any]]:
        """Texts of several rows, their beginnings, the commonest first."""
        with self._told():
            found = self._base.execute(
                "SELECT begins, times FROM texts WHERE times > 1 ORDER BY times DESC, digest LIMIT ?", (most,)
            ).fetchall()
        return [{"text": text, "rows": times} for text, times in found]

    def close(self, remove: bool) -> None:
        """What was noted since the last commit is forgotten. remove: the preparation is finished."""
        self._base.close()
        if remove:
            discard(self.path.parent)

    def _seen(self, table: str, column: str, digest: str, value: str) -> str | None:
        key = bytes.fromhex(digest)
        with self._told():
            found = self._base.execute(f"SELECT {column} FROM {table} WHERE digest = ?", (key,)).fetchone()
            if found is None:
                self._base.execute(f"INSERT INTO {table} VALUES (?, ?, 1)", (key, value))
            else:
                self._base.execute(f"UPDATE {table} SET times = times + 1 WHERE digest = ?", (key,))
        return None if found is None else found[0]

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(None, f"{error} while the journal was written", str(self.path)) from error
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{self.path} is damaged ({error}); remove {self.path.parent} and run the command again"
            ) from error


def removal(root: Path, splits: Iterable[str]) -> str:
    """The command that removes a set's output, finished or not; parts that lie beside it stay."""
    found = [root / name for name in (*splits, FILE) if (root / name).exists()]
    return shlex.join(["rm", "-r", *map(str, found)])


def discard(root: Path) -> None:
    """Removes the journal of a preparation that is finished or given up, and what helped to write its indexes."""
    for path in (*root.glob(f"{FILE}*"), *root.glob("*/index.npy.part")):
        path.unlink(missing_ok=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
