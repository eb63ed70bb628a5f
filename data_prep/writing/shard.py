"""Records to shards: plain USTAR archives whose bytes depend on nothing but the records."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np

from data_prep.rows import Skip
from vlm.data.canonical import BLOCK, INDEX_DTYPE, Record, to_json

ROW = Struct("<IQIIIIHHI")  # INDEX_DTYPE, packed
END = b"\0" * (2 * BLOCK)
assert INDEX_DTYPE.itemsize == ROW.size
LEFTOVERS = ("manifest.json*", "shard-*.tar*", "index.npy*", "skipped.jsonl*")


class ShardWriter:
    """Writes `<directory>/shard-*.tar`, index.npy and skipped.jsonl; the manifest comes last and is the caller's.

    Every file is written beside its name, flushed to the disk and renamed, so a name that exists is complete.
    Raises: OSError of the disk as it is.
    """

    def __init__(self, directory: Path, shard_bytes: int) -> None:
        self.directory, self.shard_bytes = directory, shard_bytes
        self.shards: list[dict[str, Any]] = []
        self.json_bytes = self.media_bytes = self.samples = 0
        self._index = bytearray()
        self._stream: Any = None
        directory.mkdir(parents=True, exist_ok=True)
        self.clean()
        self._skipped = (directory / "skipped.jsonl.part").open("wb")

    def clean(self) -> None:
        """Removes what an interrupted preparation left; other files stay. The manifest goes first."""
        for pattern in LEFTOVERS:
            for path in self.directory.glob(pattern):
                path.unlink()

    def add(self, record: Record, payloads: list[bytes]) -> None:
        """Appends one sample: its record, then its media in order."""
        text = to_json(record)
        members = [member(f"{record.key}.json", text)]
        members += [member(f"{record.key}.{m.member}", data) for m, data in zip(record.media, payloads, strict=True)]
        block = b"".join(members)
        if self._stream is None or self._offset + len(block) + len(END) > self.shard_bytes:
            self._finish_shard()
            self._start_shard()
        pixels = sum(medium.w * medium.h for medium in record.media)
        shard, count = len(self.shards), len(record.media)
        self._index += ROW.pack(shard, self._offset, len(block), BLOCK, len(text), 0, count, count, pixels)
        self._write(block)
        self._in_shard += 1
        self.samples += 1
        self.json_bytes += len(text)
        self.media_bytes += sum(map(len, payloads))

    def skip(self, skip: Skip) -> None:
        """Adds a line to skipped.jsonl."""
        line = {**asdict(skip.origin), "reason": skip.reason, "detail": skip.detail}
        self._skipped.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def finish(self) -> dict[str, Any]:
        """Completes all files but the manifest. Returns: the index's size and sha256."""
        self._finish_shard()
        _seal(self._skipped, self.directory / "skipped.jsonl")
        rows = np.frombuffer(bytes(self._index), dtype=INDEX_DTYPE)
        with (self.directory / "index.npy.part").open("wb") as stream:
            np.save(stream, rows)
            _seal(stream, self.directory / "index.npy")
        content = (self.directory / "index.npy").read_bytes()
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def abandon(self) -> None:
        """Gives the disk space back; for a preparation that cannot be completed."""
        for stream in (self._stream, self._skipped):
            if stream is not None:
                with suppress(OSError):  # a full disk cannot take what is still buffered, and it is given up anyway
                    stream.close()
        self.clean()
        with suppress(OSError):  # files of others stay, and so does their folder
            self.directory.rmdir()

    def skips(self) -> bytes:
        """The lines of skipped.jsonl so far."""
        self._skipped.flush()
        return Path(self._skipped.name).read_bytes()

    def _start_shard(self) -> None:
        self._name = f"shard-{len(self.shards):06d}.tar"
        self._stream = (self.directory / f"{self._name}.part").open("wb")
        self._hash = hashlib.sha256()
        self._offset = self._in_shard = 0

    def _write(self, block: bytes) -> None:
        self._stream.write(block)
        self._hash.update(block)
        self._offset += len(block)

    def _finish_shard(self) -> None:
        if self._stream is None:
            return
        self._write(END)
        _seal(self._stream, self.directory / self._name)
        self.shards.append(
            {"name": self._name, "bytes": self._offset, "samples": self._in_shard, "sha256": self._hash.hexdigest()}
        )
        self._stream = None


def write_sealed(path: Path, content: bytes) -> None:
    """The whole file or nothing."""
    with path.with_name(path.name + ".part").open("wb") as stream:
        stream.write(content)
        _seal(stream, path)


def member(name: str, data: bytes) -> bytes:
    """A tar member with nothing in it but name and content: no owner, no time, no extended header."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    header = info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    return b"".join((header, data, b"\0" * (-len(data) % BLOCK)))


def _seal(stream: Any, path: Path) -> None:
    stream.flush()
    os.fsync(stream.fileno())
    stream.close()
    os.replace(path.with_name(path.name + ".part"), path)
