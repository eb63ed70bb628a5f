"""Records to shards: plain USTAR archives whose bytes depend on nothing but the records."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO

import numpy as np

from data_prep.rows import Skip
from vlm.contracts.errors import InputError
from vlm.data.canonical import BLOCK, INDEX_DTYPE, Record, to_json

ROW = Struct("<IQIIIIHHI")  # INDEX_DTYPE, packed
END = b"\0" * (2 * BLOCK)
assert INDEX_DTYPE.itemsize == ROW.size
MOST_FRAMES = 2**16 - 1  # that the index can tell
PART = ".part"  # behind the name of a file that is not complete
LEFTOVERS = ("manifest.json*", "card.md*", "shard-*.tar*", "index.npy*", "skipped.jsonl*")


class Growing:
    """`<path>.part`, a file that grows, with its checksum; it gets its name when it is complete.

    before: {bytes, sha256} of an earlier one to go on from: what lies behind is cut off.
    Raises: InputError if what was written then is not there any more as it was.
    """

    def __init__(self, path: Path, before: dict[str, Any] | None = None) -> None:
        self.path, self.bytes, self._hash = path, 0, hashlib.sha256()
        if before is None:
            self._stream: BinaryIO = _at(path).open("wb")
            return
        if path.is_file() and not _at(path).is_file():  # completed after that
            os.replace(path, _at(path))
        if not _at(path).is_file():
            raise InputError(f"{_at(path)} is not there any more")
        self._stream = _at(path).open("rb+")
        self._stream.truncate(max(before["bytes"], 0))
        while block := self._stream.read(1 << 20):
            self._hash.update(block)
            self.bytes += len(block)
        if self.told() != before:
            self._stream.close()
            raise InputError(f"{_at(path)} is not as it was written")

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self._hash.update(data)
        self.bytes += len(data)

    def told(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "sha256": self._hash.hexdigest()}

    def sync(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def seal(self) -> dict[str, Any]:
        """Returns: what the complete file is."""
        seal(self._stream, self.path)
        return self.told()

    def close(self) -> None:
        with suppress(OSError):  # a full disk cannot take what is still buffered; no state counts on it
            self._stream.close()


class ShardWriter:
    """Writes `<directory>/shard-*.tar`, index.npy and skipped.jsonl; the manifest comes last and is the caller's.

    A file is written beside its name, flushed to the disk and renamed, so a name that exists is complete. With the
    `state` of an earlier writer it goes on behind what was written then.
    Raises: OSError of the disk as it is; InputError if what the state tells of is not there any more.
    """

    def __init__(self, directory: Path, shard_bytes: int, state: dict[str, Any] | None = None) -> None:
        self.directory, self.shard_bytes = directory, shard_bytes
        self.shards: list[dict[str, Any]] = []
        self.skipped: dict[str, Any] = {}  # the complete skipped.jsonl
        self.json_bytes = self.media_bytes = self.samples = 0
        self._shard: Growing | None = None
        self._in_shard = 0
        directory.mkdir(parents=True, exist_ok=True)
        if state is None:
            self.clean()
        else:
            self._restore(state)
        before = state or {}
        self._index = Growing(directory / "index.npy", before.get("index"))
        self._skips = Growing(directory / "skipped.jsonl", before.get("skipped"))

    def clean(self) -> None:
        """Removes what an earlier preparation left; other files stay. The manifest goes first."""
        for pattern in LEFTOVERS:
            for path in self.directory.glob(pattern):
                path.unlink()

    def add(self, record: Record, payloads: Sequence[bytes], tokens: int = 0) -> bool:
        """Appends one sample: its record, then the members of its media in order. tokens: of its text, 0 = not counted.

        Returns: whether a shard was completed before it.
        """
        text = to_json(record)
        members = [member(f"{record.key}.json", text)]
        names = [name for medium in record.media for name in medium.members]
        members += [member(f"{record.key}.{name}", data) for name, data in zip(names, payloads, strict=True)]
        block = b"".join(members)
        completed = self._shard is not None and self._shard.bytes + len(block) + len(END) > self.shard_bytes
        if completed:
            self._finish_shard()
        if self._shard is None:
            self._shard, self._in_shard = Growing(self.directory / self._name), 0
        pixels = sum(medium.w * medium.h for medium in record.media)
        frames = min(sum(medium.frames for medium in record.media), MOST_FRAMES)
        place = (len(self.shards), self._shard.bytes, len(block), BLOCK, len(text))
        self._index.write(ROW.pack(*place, tokens, frames, len(record.media), pixels))
        self._shard.write(block)
        self._in_shard += 1
        self.samples += 1
        self.json_bytes += len(text)
        self.media_bytes += sum(map(len, payloads))
        return completed

    def skip(self, skip: Skip) -> None:
        """Adds a line to skipped.jsonl."""
        line = {**asdict(skip.origin), "reason": skip.reason, "detail": skip.detail, "rows": skip.rows}
        self._skips.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")

    def state(self) -> dict[str, Any]:
        """Everything so far is on the disk; with this a later writer goes on from here."""
        self.sync()
        return {
            "shards": self.shards,
            "samples": self.samples,
            "json_bytes": self.json_bytes,
            "media_bytes": self.media_bytes,
            "index": self._index.told(),
            "skipped": self._skips.told(),
            "shard": None if self._shard is None else self._shard.told(),
            "in_shard": self._in_shard,
        }

    def sync(self) -> None:
        """Everything so far is on the disk."""
        for file in filter(None, (self._index, self._skips, self._shard)):
            file.sync()

    def finish(self) -> dict[str, Any]:
        """Completes all files but the manifest. Returns: the index's size and sha256."""
        self._finish_shard()
        self.skipped = self._skips.seal()
        self._index.sync()
        target = self.directory / "index.npy"
        with _at(target).open("rb") as rows, target.with_name("index.npy.whole").open("wb+") as whole:
            header = {"descr": INDEX_DTYPE.descr, "fortran_order": False, "shape": (self.samples,)}
            np.lib.format.write_array_header_1_0(whole, header)
            shutil.copyfileobj(rows, whole)
            whole.flush()
            os.fsync(whole.fileno())
            whole.seek(0)
            digest = hashlib.file_digest(whole, "sha256").hexdigest()
        os.replace(target.with_name("index.npy.whole"), target)
        return {"bytes": target.stat().st_size, "sha256": digest}

    def close(self, keep: bool) -> None:
        """The end: of a finished split (what helped to write it goes), or of one that a later writer goes on with."""
        for file in filter(None, (self._index, self._skips, self._shard)):
            file.close()
        if not keep:
            _at(self.directory / "index.npy").unlink(missing_ok=True)

    def abandon(self) -> None:
        """Gives the disk space back; for a preparation that nothing goes on from."""
        self.clean()
        with suppress(OSError):  # files of others stay, and so does their folder
            self.directory.rmdir()

    def _restore(self, state: dict[str, Any]) -> None:
        (self.directory / "manifest.json").unlink(missing_ok=True)
        self.shards, self.samples = state["shards"], state["samples"]
        self.json_bytes, self.media_bytes = state["json_bytes"], state["media_bytes"]
        for shard in self.shards:
            path = self.directory / shard["name"]
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                raise InputError(f"{path} was written before, but is not there as it was")
        if state["shard"] is not None:
            self._shard, self._in_shard = Growing(self.directory / self._name, state["shard"]), state["in_shard"]
        kept = {shard["name"] for shard in self.shards}
        for path in self.directory.glob("shard-*.tar*"):
            if path.name not in kept and path != _at(self.directory / self._name):
                path.unlink()

    @property
    def _name(self) -> str:
        """Of the shard that is being written."""
        return f"shard-{len(self.shards):06d}.tar"

    def _finish_shard(self) -> None:
        if self._shard is None:
            return
        self._shard.write(END)
        self.shards.append({"name": self._name, "samples": self._in_shard, **self._shard.seal()})
        self._shard = None


def write_sealed(path: Path, content: bytes) -> None:
    """The whole file or nothing."""
    with _at(path).open("wb") as stream:
        stream.write(content)
        seal(stream, path)


def seal(stream: BinaryIO, path: Path) -> None:
    """The stream of `<path>.part` is complete: it is put on the disk and gets its name."""
    stream.flush()
    os.fsync(stream.fileno())
    stream.close()
    os.replace(_at(path), path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too
    finally:
        os.close(folder)


def member(name: str, data: bytes) -> bytes:
    """A tar member with nothing in it but name and content: no owner, no time, no extended header."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    header = info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    return b"".join((header, data, b"\0" * (-len(data) % BLOCK)))


def _at(path: Path) -> Path:
    return path.with_name(path.name + PART)
