"""A benchmark's folder: its tables and pictures, looked for and checked before a question is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from vlm.contracts.benchmark import Picture
from vlm.contracts.errors import InputError
from vlm.evaluation.readers.rows import Row

SUMS = "SHA256SUMS"  # as sha256sum writes it; data_prep.forms leaves one in each folder


class Files:
    """Files under one folder. checksums: file -> sha256, of those that are held to it; a SHA256SUMS there adds its own.

    Nothing is opened before it is asked for.
    """

    def __init__(self, folder: str, checksums: Mapping[str, str] | None = None) -> None:
        self.folder = Path(folder)
        self.checksums = dict(checksums or {})

    def tables(self, names: Sequence[str]) -> list[Path]:
        """The paths, each there and, where a checksum is known, as published. Raises: InputError."""
        stray = set(self.checksums) - set(names)
        if stray:
            raise InputError(
                f"checksums name {', '.join(sorted(stray))}, but what is read from {self.folder} is "
                f"{', '.join(names)}; correct reader.checksums"
            )
        paths = [self.folder / name for name in names]
        for name, path in zip(names, paths, strict=True):
            if not path.is_file():
                raise InputError(f"{path} is not there; {self._remedy}")
            known = self.checksums.get(name, self._sums.get(name))
            if known is not None:
                with path.open("rb") as stream:
                    _compare(path, hashlib.file_digest(stream, "sha256").hexdigest(), known)
        return paths

    def matching(self, pattern: str) -> list[str]:
        """Names of the tables that fit, sorted. Raises: InputError if none does."""
        found = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.glob(pattern))
        if not found:
            raise InputError(f"{self.folder} holds no {pattern}; {self._remedy}")
        return found

    def picture(self, name: str) -> Picture:
        """A picture of the folder, identified by its name."""
        return Picture(name, partial(_read, self.folder / name, self._sums.get(name)))

    def clip(self, name: str, part: tuple[float, float] | None = None) -> Picture:
        """A clip, or a folder of frames. part: first and last second of what is shown, written as "#t=first,last"."""
        cut = "" if part is None else f"#t={part[0]:g},{part[1]:g}"
        return Picture(f"{name}{cut}", f"{self.folder / name}{cut}".encode, "video")

    def present(self, names: Iterable[str], what: str = "pictures") -> None:
        """Raises: InputError that counts the pictures that are not there."""
        every = dict.fromkeys(names)
        missing = [name for name in every if not (self.folder / name).exists()]
        if missing:
            raise InputError(
                f"{self.folder}: {len(missing):,} of {len(every):,} {what} are not there, for example {missing[0]}; "
                f"{self._remedy}"
            )

    @cached_property
    def _sums(self) -> dict[str, str]:
        path = self.folder / SUMS
        if not path.is_file():
            return {}
        lines = [line.split(maxsplit=1) for line in path.read_text("utf-8").splitlines() if line.strip()]
        if any(len(line) != 2 for line in lines):
            raise InputError(f"{path} is not a list of checksums and names, as sha256sum writes it; {self._remedy}")
        return {name.removeprefix("*"): digest for digest, name in lines}

    @property
    def _remedy(self) -> str:
        return "get the published files again (key `get` of the benchmark) or correct reader.folder"


def json_table(path: Path) -> Any:
    """The file's one JSON value. Raises: InputError."""
    return _parsed(path, str(path), path.read_bytes())


def slim_json(path: Path, hook: Callable[[dict[str, Any]], Any]) -> Any:
    """As json_table, each object replaced by what hook makes of it: large tables are then held in less memory."""
    return _parsed(path, str(path), path.read_bytes(), object_hook=hook)


def json_lines(path: Path) -> Iterator[Row]:
    """A row a line; empty lines are passed over. Raises: InputError that names the line."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                where = f"{path} row {number}"
                yield Row.of(where, _parsed(path, where, line))


def json_rows(path: Path, entries: Any, what: str = "") -> list[Row]:
    """The rows of a JSON list. Raises: InputError if it is none."""
    named = f"{path} {what}".strip()
    if not isinstance(entries, list):
        raise InputError(f"{named} is {type(entries).__name__}, not a list; it is not of the published form")
    return [Row.of(f"{named} row {number}", entry) for number, entry in enumerate(entries, 1)]


def member(path: Path, content: Any, key: str) -> Any:
    """A value of a JSON object. Raises: InputError if it is not there."""
    if not isinstance(content, dict) or key not in content:
        found = ", ".join(list(content)[:6]) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{path} has no {key!r} (found {found}); it is not of the published form")
    return content[key]


def _parsed(path: Path, where: str, data: bytes, **options: Any) -> Any:
    try:
        return json.loads(data.decode("utf-8"), **options)
    except (ValueError, RecursionError) as error:  # of the text's encoding, too
        raise InputError(f"{where} is no JSON ({error}); get {path.name} again") from error


def _read(path: Path, known: str | None) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; get it again") from error
    if known is not None:
        _compare(path, hashlib.sha256(data).hexdigest(), known)
    return data


def _compare(path: Path, found: str, known: str) -> None:
    if found != known:
        raise InputError(
            f"{path} is another version or damaged: its sha256 is {found}, expected {known}; get it again, or correct "
            f"reader.checksums or the {SUMS} beside it"
        )
