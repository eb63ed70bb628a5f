"""A share of a source's rows, converted on its own and kept as outcomes until all shares are merged."""

from __future__ import annotations

import heapq
import json
import logging
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from data_prep.budget import Budget
from data_prep.reading.archive import sha256_of
from data_prep.rows import Skip, SourceFile
from data_prep.settings import PrepareSettings
from data_prep.work import Kept, Numbered, Outcome, Same
from data_prep.writing.manifest import Identity
from data_prep.writing.shard import END, Growing, member, write_sealed
from data_prep.writing.unchanged import Unchanged
from vlm.contracts.errors import InputError
from vlm.data.canonical import Origin, from_json, to_json

log = logging.getLogger(__name__)
BLOCK_ROWS = 64  # neighbouring rows that stay in one part, so that they are read from the same place
RECORD = "part.json"
KEYS = {"part", "complete", "rows", "identity", "files", "sealed", "settings"}  # of the record
FILE_BYTES = 256_000_000


class PartLog:
    """`<out>/<set>/part-i-of-n/`: what became of the rows of every n-th block, in files of at most 256 MB.

    part.json lists the files that are complete, with their checksums; the same command goes on behind the last one.
    """

    def __init__(self, root: Path, settings: PrepareSettings, identity: Identity) -> None:
        assert settings.part is not None
        self.settings, self.identity = settings, identity
        self.index, self.of = map(int, settings.part.split("/"))
        self.directory = root / settings.part_name
        self.rows = 0  # of the whole source, once all were seen
        self.sealed: list[dict[str, Any]] = []  # complete files: name, next row, bytes, sha256
        self._unchanged = Unchanged((), f"rm -r {self.directory}")
        self._file: Growing | None = None
        self._budget = Budget(settings.source.budget)

    def __enter__(self) -> PartLog:
        if (self.directory / RECORD).is_file():
            record = read_part(self.directory)
            begun = Identity(**record["identity"]).unfinished
            if begun != self.identity.unfinished or record["part"] != [self.index, self.of]:
                raise InputError(
                    f"{self.directory} was begun with other settings; start it anew with: rm -r {self.directory}"
                )
            self.sealed = record["sealed"]
            self._unchanged = Unchanged([SourceFile(**file) for file in record["files"]], f"rm -r {self.directory}")
        known = {entry["name"] for entry in self.sealed}
        for path in self.directory.glob("outcomes-*"):
            if path.name not in known:
                path.unlink()
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def next(self) -> int:
        """Rows before it are in complete files."""
        return self.sealed[-1]["next"] if self.sealed else 0

    def has(self, number: int) -> bool:
        """Whether this part is to convert the row."""
        return number // BLOCK_ROWS % self.of == self.index

    def write(
        self, found: Iterable[Outcome], files: list[SourceFile], progress: Callable[[int], None]
    ) -> dict[str, Any]:
        """files: read so far, it grows. Returns: what is known of the part. Raises: OverBudget for what stands out after
        each 10,000 rows (a small share may be worse than the whole, which the merge judges); InputError if a file has
        changed.
        """
        for number, outcome in found:
            self._unchanged.check(files)
            self._take(number, outcome)
            if self._file is not None and self._file.bytes >= FILE_BYTES:
                self._seal(self._file, number + 1)
                self._record(files, complete=False)
            progress(number)
        self._unchanged.check(files, at_end=True)
        if self._file is not None:
            self._seal(self._file, self.rows)
        self._record(files, complete=True)
        name, told = (
            self.settings.source.name,
            {"part": self.settings.part, "dir": str(self.directory), "rows": self.rows},
        )
        log.info("%s: part %s is complete; when all are: python -m data_prep.merge parts=[DIR,…]", name, told["part"])
        return {"set": name, **told}

    def _take(self, number: int, outcome: Kept | Skip) -> None:
        if self._file is None:
            self._file = Growing(self.directory / f"outcomes-{number:012d}.tar")
        name = f"{number:012d}"
        members = [member(f"{name}.json", _to_json(outcome))]
        if isinstance(outcome, Skip):
            self._budget.skip(outcome.reason, f"row {number}: {outcome.detail}", outcome.rows)
        else:
            members += [member(f"{name}.{i}", data) for i, data in enumerate(outcome.payloads)]
            self._budget.kept(1 + outcome.merged)
        self._file.write(b"".join(members))

    def _seal(self, file: Growing, behind: int) -> None:
        """behind: number of the row behind the last one of the file."""
        file.write(END)
        told = file.seal()
        self.sealed.append({"name": file.path.name, "next": behind, **told})
        self._file = None

    def _record(self, files: list[SourceFile], complete: bool) -> None:
        settings = json.loads(TypeAdapter(PrepareSettings).dump_json(self.settings, by_alias=True))
        content = {
            "part": [self.index, self.of],
            "complete": complete,
            "rows": self.rows,
            "identity": asdict(self.identity),
            "files": [asdict(file) for file in files],
            "sealed": self.sealed,
            "settings": settings,
        }
        write_sealed(self.directory / RECORD, json.dumps(content, indent=1).encode())


def read_part(directory: Path) -> dict[str, Any]:
    """What part.json says. Raises: InputError if there is none, or it is damaged."""
    path = directory / RECORD
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{directory} is no part of a set (no {RECORD}); give folders that python -m data_prep.prepare part=i/n wrote"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); remove {directory} and run its part again") from error
    if not isinstance(content, dict) or not content.keys() >= KEYS:
        raise InputError(f"{path} is damaged (keys are missing); remove {directory} and run its part again")
    return content


def of_part(rows: Iterable[Numbered], part: PartLog) -> Iterator[Numbered]:
    """The rows that the part still has to convert; all are counted."""
    for number, row in rows:
        part.rows = number + 1
        if number >= part.next and part.has(number):
            yield number, row


def merged(parts: Mapping[Path, Mapping[str, Any]]) -> Iterator[Outcome]:
    """The outcomes of all parts in the order of the source's rows. parts: folder -> what its part.json says.

    Raises: InputError for a file that is missing, or not as it was written.
    """
    readers = [_outcomes(directory, part["sealed"]) for directory, part in parts.items()]
    return heapq.merge(*readers, key=lambda entry: entry[0])


def _outcomes(directory: Path, sealed: Iterable[Mapping[str, Any]]) -> Iterator[Outcome]:
    for entry in sealed:
        path = directory / entry["name"]
        if not path.is_file() or sha256_of(path) != entry["sha256"]:
            what = "is not as it was written" if path.is_file() else "is missing"
            raise InputError(f"{path} {what}; remove {directory} and run its part again")
        with tarfile.open(path, "r:") as archive:
            yield from _of_archive(archive)


def _of_archive(archive: tarfile.TarFile) -> Iterator[Outcome]:
    def content(info: tarfile.TarInfo) -> bytes:
        stream = archive.extractfile(info)
        assert stream is not None
        return stream.read()

    while (info := archive.next()) is not None:
        told = json.loads(content(info))
        number = int(info.name.split(".")[0])
        pictures = []
        for _ in range(told.get("members", len(told.get("sources", ())))):
            following = archive.next()
            assert following is not None, f"a picture of row {number} is missing"
            pictures.append(content(following))
        archive.members = []  # type: ignore[attr-defined]  # or it would remember every member
        yield number, _from_json(told, pictures)


def _to_json(outcome: Kept | Skip) -> bytes:
    if isinstance(outcome, Skip):
        return json.dumps({"skip": asdict(outcome)}).encode()
    content = {
        "record": to_json(outcome.record).decode(),
        "sources": outcome.sources,
        "members": len(outcome.payloads),
        "merged": outcome.merged,
        "repaired": outcome.repaired,
        "tokens": outcome.tokens,
        "same": vars(outcome.same),
        "is_piece": outcome.is_piece,
    }
    return json.dumps(content).encode()


def _from_json(told: dict[str, Any], pictures: list[bytes]) -> Kept | Skip:
    if "skip" in told:
        return Skip(**{**told["skip"], "origin": Origin(**told["skip"]["origin"])})
    sources = tuple((mode, form) for mode, form in told["sources"])
    return Kept(
        from_json(told["record"].encode()), tuple(pictures), sources, told["merged"], tuple(told["repaired"]),
        tuple(told["tokens"]), _same(told["same"]), told.get("is_piece", False),
    )  # fmt: skip


def _same(told: dict[str, Any]) -> Same:
    return Same(**{**told, "answers": None if told["answers"] is None else tuple(told["answers"])})
