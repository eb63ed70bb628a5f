"""A share of a source's rows, converted on its own and kept as outcomes until all shares are merged."""

from __future__ import annotations

import heapq
import json
import logging
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from data_prep.budget import Budget
from data_prep.rows import Skip, SourceFile
from data_prep.settings import PrepareSettings
from data_prep.work import Kept, Numbered, Outcome, Same
from data_prep.writing.manifest import Identity
from data_prep.writing.shard import END, member, seal, write_sealed
from vlm.contracts.errors import InputError
from vlm.data.canonical import Origin, from_json, to_json

log = logging.getLogger(__name__)
BLOCK_ROWS = 64  # neighbouring rows that stay in one part, so that they are read from the same place
NAME = re.compile(r"outcomes-(\d{12})-(\d{12})\.tar")  # first row, and the one behind the last
FILE_BYTES = 256_000_000


class PartLog:
    """`<out>/<set>/part-i-of-n/`: what became of the rows of every n-th block, in files of at most 256 MB.

    A file that exists is complete; the same command goes on behind the last one. part.json comes last.
    """

    def __init__(self, root: Path, settings: PrepareSettings, identity: Identity) -> None:
        assert settings.part is not None
        self.settings, self.identity = settings, identity
        self.index, self.of = map(int, settings.part.split("/"))
        self.directory = root / settings.part_name
        self.next = 0  # rows before it are in complete files
        self.rows = 0  # of the whole source, once all were seen
        self._stream: Any = None
        self._budget = Budget(settings.source.budget)

    def __enter__(self) -> PartLog:
        head = json.dumps({"identity": self.identity.unfinished, "of": self.of})
        begun = self.directory / "begun.json"
        if begun.is_file() and begun.read_text() != head:
            raise InputError(
                f"{self.directory} was begun with other settings; start it anew with: rm -r {self.directory}"
            )
        write_sealed(begun, head.encode())
        for path in self.directory.glob("*.part"):
            path.unlink()
        self.next = max((int(found[2]) for found in _files(self.directory)), default=0)
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def has(self, number: int) -> bool:
        """Whether this part is to convert the row."""
        return number // BLOCK_ROWS % self.of == self.index

    def write(
        self, found: Iterable[Outcome], files: list[SourceFile], progress: Callable[[int], None]
    ) -> dict[str, Any]:
        """Returns: counts. Raises: OverBudget, for the rows of this start."""
        for number, outcome in found:
            self._take(number, outcome)
            progress(number)
        self._budget.enforce()
        self._seal(self.rows)
        settings = json.loads(TypeAdapter(PrepareSettings).dump_json(self.settings, by_alias=True))
        content = {
            "part": [self.index, self.of],
            "rows": self.rows,
            "identity": asdict(self.identity),
            "files": [asdict(file) for file in files],
            "settings": settings,
        }
        write_sealed(self.directory / "part.json", json.dumps(content, indent=1).encode())
        log.info("%s: part %d of %d is complete; when all are: python -m data_prep.merge", *self._told())
        return {
            "set": self.settings.source.name,
            "part": self.settings.part,
            "dir": str(self.directory),
            "rows": self.rows,
        }

    def _told(self) -> tuple[str, int, int]:
        return self.settings.source.name, self.index, self.of

    def _take(self, number: int, outcome: Kept | Skip) -> None:
        if self._stream is None:
            self._first, self._bytes = number, 0
            self._stream = (self.directory / "outcomes.part").open("wb")
        name = f"{number:012d}"
        members = [member(f"{name}.json", _to_json(outcome))]
        if isinstance(outcome, Skip):
            self._budget.skip(outcome.reason, f"row {number}: {outcome.detail}", outcome.rows)
        else:
            members += [member(f"{name}.{i}", data) for i, data in enumerate(outcome.payloads)]
            self._budget.kept(1 + outcome.merged)
        self._stream.write(block := b"".join(members))
        self._bytes += len(block)
        if self._bytes >= FILE_BYTES:
            self._seal(number + 1)

    def _seal(self, stop: int) -> None:
        if self._stream is None:
            return
        self._stream.write(END)
        name = f"outcomes-{self._first:012d}-{stop:012d}.tar"
        (self.directory / "outcomes.part").rename(self.directory / f"{name}.part")
        seal(self._stream, self.directory / name)
        self._stream = None


def of_part(rows: Iterable[Numbered], part: PartLog) -> Iterator[Numbered]:
    """The rows that the part still has to convert; all are counted."""
    for number, row in rows:
        part.rows = number + 1
        if number >= part.next and part.has(number):
            yield number, row


def merged(directories: Iterable[Path]) -> Iterator[Outcome]:
    """The outcomes of all parts in the order of the source's rows."""
    return heapq.merge(*map(_outcomes, directories), key=lambda entry: entry[0])


def _outcomes(directory: Path) -> Iterator[Outcome]:
    for found in _files(directory):
        path = directory / found[0]
        try:
            with tarfile.open(path, "r:") as archive:
                yield from _of_archive(archive)
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}); remove it and run its part again") from error


def _of_archive(archive: tarfile.TarFile) -> Iterator[Outcome]:
    def content(info: tarfile.TarInfo) -> bytes:
        stream = archive.extractfile(info)
        assert stream is not None
        return stream.read()

    while (info := archive.next()) is not None:
        told = json.loads(content(info))
        number = int(info.name.split(".")[0])
        pictures = []
        for _ in told.get("sources", ()):
            following = archive.next()
            if following is None or not following.name.startswith(f"{number:012d}."):
                raise ValueError(f"a picture of row {number} is missing")
            pictures.append(content(following))
        archive.members = []  # type: ignore[attr-defined]  # or it would remember every member
        yield number, _from_json(told, pictures)


def _files(directory: Path) -> list[re.Match[str]]:
    return [found for path in sorted(directory.iterdir()) if (found := NAME.fullmatch(path.name))]


def _to_json(outcome: Kept | Skip) -> bytes:
    if isinstance(outcome, Skip):
        return json.dumps({"skip": asdict(outcome)}).encode()
    content = {
        "record": to_json(outcome.record).decode(),
        "sources": outcome.sources,
        "merged": outcome.merged,
        "repaired": outcome.repaired,
        "tokens": outcome.tokens,
        "same": vars(outcome.same),
    }
    return json.dumps(content).encode()


def _from_json(told: dict[str, Any], pictures: list[bytes]) -> Kept | Skip:
    if "skip" in told:
        return Skip(**{**told["skip"], "origin": Origin(**told["skip"]["origin"])})
    sources = tuple((mode, form) for mode, form in told["sources"])
    return Kept(
        from_json(told["record"].encode()), tuple(pictures), sources, told["merged"], tuple(told["repaired"]),
        tuple(told["tokens"]), Same(**told["same"]),
    )  # fmt: skip
