"""Rows of LLaVA's form about clips: `<image>` or `<video>` in a question stands for the one clip of the row."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from data_prep.chats import PLACEHOLDER, chat
from data_prep.rows import Unfit
from vlm.contracts.errors import InputError
from vlm.data.canonical import Message, Origin

FORM = '{"id": "…", "video": "path", "conversations": [{"from": "human", "value": "<image>\\n…"}, {"from": "gpt", "value": "…"}], …}'


def checked(content: Any, where: str, *, first: bool, also: set[str]) -> dict[str, Any]:
    """also: further keys that a row may have.

    Raises: Unfit for a row of another form, InputError if it is the first: then the file is another one.
    """
    if isinstance(content, Unfit):
        raise content
    told = []
    if not isinstance(content, dict):
        told = [f"is {str(content)[:60]!r}"]
    else:
        needed = {"id", "video", "conversations"}
        told += [f"has no {name}" for name in sorted(needed - set(content))]
        told += [f"has a key {name!r}" for name in sorted(set(content) - needed - also)]
        if not told and not (isinstance(content["video"], str) and content["video"]):
            told = [f"has the video {str(content['video'])[:60]!r}; expected one path"]
    if told and first:
        raise InputError(f"{where} {' and '.join(told)}; expected {FORM}. Is it the right file?")
    if told:
        raise Unfit("row_malformed", f"the row {' and '.join(told)}")
    return content


def talk(turns: Any, where: str) -> tuple[list[Message], list[str]]:
    """The turns as messages that show the clip, and what was repaired. Raises: as `chats.chat`."""
    if isinstance(turns, list):
        turns = [_with_one_placeholder(turn) for turn in turns]
    return chat(turns, 1, where, kind="video")


def _with_one_placeholder(turn: Any) -> Any:
    if (
        not isinstance(turn, dict)
        or not isinstance(turn.get("value"), str)
        or turn.get("from") not in ("human", "user")
    ):
        return turn
    return {**turn, "value": turn["value"].replace("<video>", PLACEHOLDER)}


class Shelf:
    """Rows that wait for their clip, on the disk; of millions of them, those of one clip are found at once.

    It is a context; what lies on it is gone behind it.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch

    def __enter__(self) -> Shelf:
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._folder = TemporaryDirectory(prefix="shelf-", dir=self._scratch)
        self._base = sqlite3.connect(Path(self._folder.name) / "rows.sqlite", isolation_level=None)
        self._base.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; BEGIN;"
            "CREATE TABLE rows (number INTEGER PRIMARY KEY, clip TEXT, origin TEXT, content TEXT, taken INT DEFAULT 0);"
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._base.close()
        self._folder.cleanup()

    def put(self, clip: str, origin: Origin, content: Any) -> None:
        told = json.dumps([origin.file, origin.row, origin.id])
        self._base.execute(
            "INSERT INTO rows (clip, origin, content) VALUES (?, ?, ?)", (clip, told, json.dumps(content))
        )

    def full(self) -> None:
        """Nothing more will be put on it."""
        self._base.executescript("CREATE INDEX clips ON rows (clip);")

    def waits(self, clip: str) -> bool:
        return self._base.execute("SELECT 1 FROM rows WHERE clip = ? AND NOT taken", (clip,)).fetchone() is not None

    def take(self, clip: str) -> list[tuple[Origin, Any]]:
        """The rows of a clip, in their order."""
        asked = "SELECT origin, content FROM rows WHERE clip = ? AND NOT taken ORDER BY number"
        found = [(_origin(origin), json.loads(content)) for origin, content in self._base.execute(asked, (clip,))]
        self._base.execute("UPDATE rows SET taken = 1 WHERE clip = ?", (clip,))
        return found

    def left(self) -> Iterator[tuple[Origin, str]]:
        """Rows that nobody took, with the names of their clips."""
        for origin, clip in self._base.execute("SELECT origin, clip FROM rows WHERE NOT taken ORDER BY number"):
            yield _origin(origin), clip


def _origin(told: str) -> Origin:
    return Origin(*json.loads(told))
