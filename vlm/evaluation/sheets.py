"""What a model answered to one benchmark under one group of settings: kept line by line, gone on with after a stop."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vlm.contracts.benchmark import Reply
from vlm.contracts.errors import InputError, RunError
from vlm.contracts.writing import write_whole


class Sheet:
    """<evaluation>/sheets/<benchmark>-<id>/: settings.json, and a file a condition and part with a line a question.

    settings: everything that decides the answers; the sheet's id is their hash, so other settings are another sheet.
    notes: what else is kept with them.
    """

    def __init__(
        self, folder: Path, benchmark: str, settings: Mapping[str, Any], notes: Mapping[str, Any] | None = None
    ) -> None:
        self.id = settings_id(settings)
        self.settings = {"id": self.id, **settings, **(notes or {})}
        self.path = folder / "sheets" / f"{benchmark}-{self.id}"

    def replies(self, condition: str) -> dict[str, Reply]:
        return read_replies(self.path, condition)

    def describe(self) -> None:
        """Write settings.json anew: notes may have changed since the answers were given. Raises: RunError."""
        write_whole(self.path / "settings.json", [json.dumps(self.settings, indent=1)])

    def writer(self, condition: str, part: str, anew: bool = False) -> SheetWriter:
        """anew: what was there is replaced. Raises: InputError if another process answers this part; RunError if
        nothing can be written.
        """
        return SheetWriter(self, condition, part, anew)


class SheetWriter:
    """Appends replies to one file, each batch safe on the disk before the next."""

    def __init__(self, sheet: Sheet, condition: str, part: str, anew: bool) -> None:
        self.path = sheet.path / f"{condition}.{part.replace('/', 'of')}.jsonl"
        self.sheet, self.anew = sheet, anew
        self._lock = FileLock(self.path.with_suffix(".lock"))

    def __enter__(self) -> SheetWriter:
        with _writing(self.path):
            self.sheet.describe()
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise InputError(
                    f"{self.path.parent}: another process answers this benchmark here; wait for it, or name another "
                    "folder with out=DIR"
                ) from None
            end_cut_line(self.path)
            self._file = self.path.open("w" if self.anew else "a", encoding="utf-8")
        return self

    def __exit__(self, *caught: object) -> None:
        self._file.close()
        self._lock.release()

    def write(self, replies: Sequence[Reply]) -> None:
        with _writing(self.path):
            self._file.writelines(json.dumps(asdict(reply)) + "\n" for reply in replies)
            self._file.flush()
            os.fsync(self._file.fileno())


class _writing:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError):
            raise RunError(
                f"{self.path} cannot be written: {error.strerror or error}; free some space. What was answered before is kept"
            ) from error


def read_replies(path: Path, condition: str) -> dict[str, Reply]:
    """Question -> reply, of all parts of a sheet. Raises: InputError for a damaged line, unless a stop cut it off."""
    found: dict[str, Reply] = {}
    for file in sorted(path.glob(f"{condition}.*of*.jsonl")):
        for number, line in whole_lines(file):
            try:
                reply = Reply(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise InputError(f"{file} line {number} is damaged ({error}); remove the line, or the file") from error
            found.setdefault(reply.id, reply)
    return found


def settings_id(settings: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of what decides the answers."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def end_cut_line(path: Path) -> None:
    """A line that a stop cut off must not swallow the next one."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and line; a last one without its end was cut by a stop, and its question is asked again."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield number, line
