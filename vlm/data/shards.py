"""Prepared sets, read row by row: one positioned read of the tar per sample, found through a memory-mapped index."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from vlm.contracts.errors import InputError
from vlm.contracts.sample import Sample
from vlm.data.canonical import BLOCK, INDEX_DTYPE, Record, from_json, to_sample
from vlm.data.manifest import again, read_manifest


class RowError(InputError):
    """A row that cannot be read, for the loader to count; its message is "reason: detail".

    set, key, row: which one.   reason: its name in counts and budgets.   detail: what was found.
    """

    def __init__(self, set: str, key: str, row: int, reason: str, detail: str) -> None:
        self.set, self.key, self.row, self.reason, self.detail = set, key, row, reason, detail
        super().__init__(f"{reason}: {set} row {row} ({key}): {detail}")

    def __reduce__(self) -> tuple[type[RowError], tuple[str, str, int, str, str]]:
        return type(self), (self.set, self.key, self.row, self.reason, self.detail)


class ShardSet:
    """A prepared split, `<set>/<split>/` with manifest.json, index.npy and shard-*.tar, as a sequence of samples.

    Files are opened at the first read in each process, so it can be sent to data workers before or after that.
    Raises: InputError if the directory is unfinished, empty, or does not agree with its manifest.
    """

    def __init__(self, directory: str | os.PathLike[str], manifest: dict[str, Any] | None = None) -> None:
        """manifest: given only by the writer, which reads its work back before it calls it finished."""
        self.directory = Path(directory)
        self.manifest: dict[str, Any] = read_manifest(self.directory) if manifest is None else manifest
        self.set: str = self.manifest["set"]
        self.split: str = self.manifest["split"]
        self._check_sizes()
        self._files: dict[int, int] = {}

    def __len__(self) -> int:
        return self.manifest["counts"]["samples_out"]

    def __getitem__(self, row: int) -> Sample:
        """Raises: RowError if the row is damaged; IndexError beyond the end."""
        record, payloads = self.read(row)
        return to_sample(record, payloads)

    def read(self, row: int) -> tuple[Record, list[bytes]]:
        """The stored record and the bytes of its media. Raises: as `[row]`."""
        if not 0 <= row < len(self):
            raise IndexError(f"{self.set}/{self.split} has {len(self)} rows; there is no row {row}")
        entry = self._index[row]
        shard, offset, span = int(entry["shard"]), int(entry["offset"]), int(entry["span"])
        shards = self.manifest["shards"]
        if shard >= len(shards) or offset + span > shards[shard]["bytes"]:
            detail = f"the index points at bytes {offset} to {offset + span} of shard {shard}, which are not there"
            raise self._fault(row, "row_malformed", detail)
        block = os.pread(self._file(shard), span, offset)
        if len(block) != span:
            raise self._fault(row, "row_malformed", f"the shard ends after {len(block)} of {span} bytes")
        start = int(entry["json_off"])
        try:
            record = from_json(block[start : start + int(entry["json_len"])])
        except ValueError as error:
            raise self._fault(row, "row_malformed", str(error)) from error
        return record, self._payloads(row, record, block, start + _padded(int(entry["json_len"])))

    def _payloads(self, row: int, record: Record, block: bytes, position: int) -> list[bytes]:
        payloads: list[bytes] = []
        for medium in record.media:
            name = block[position : position + 100].rstrip(b"\0").decode("ascii", "replace")
            if name != f"{record.key}.{medium.member}":
                raise self._fault(row, "media_missing", f"found member {name!r} in place of {medium.member}")
            data = block[position + BLOCK : position + BLOCK + medium.bytes]
            if hashlib.sha256(data).hexdigest() != medium.sha256:
                raise self._fault(row, "media_undecodable", f"the bytes of {name} changed after they were written")
            payloads.append(data)
            position += BLOCK + _padded(medium.bytes)
        return payloads

    @cached_property
    def manifest_sha256(self) -> str:
        """Identity of the data: the manifest without its date."""
        return manifest_sha256(self.manifest)

    @property
    def license(self) -> str:
        """All licences in the set as one SPDX expression."""
        return " AND ".join(sorted(self.manifest["license"]["counts"]))

    def close(self) -> None:
        """Closes the shards; the next read opens them again."""
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        # A process opens its own files; the index is mapped again, not copied.
        return {k: v for k, v in self.__dict__.items() if k != "_index"} | {"_files": {}}

    @cached_property
    def _index(self) -> np.ndarray:
        return np.load(self.directory / "index.npy", mmap_mode="r")

    def _file(self, shard: int) -> int:
        # Sharing a file after a fork is harmless: a positioned read moves no common offset.
        if shard not in self._files:
            self._files[shard] = os.open(self.directory / self.manifest["shards"][shard]["name"], os.O_RDONLY)
        return self._files[shard]

    def _fault(self, row: int, reason: str, detail: str) -> RowError:
        detail = f"{detail}; {again(self.directory)}"
        return RowError(f"{self.set}/{self.split}", f"{self.set}-{row:010d}", row, reason, detail)

    def _check_sizes(self) -> None:
        """Compares the files' sizes with the manifest: a copy that broke off is found before training starts."""
        expected = {"index.npy": self.manifest["index"]["bytes"]}
        expected |= {shard["name"]: shard["bytes"] for shard in self.manifest["shards"]}
        for name, size in expected.items():
            path = self.directory / name
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                what = "is missing" if found is None else f"has {found} bytes"
                raise InputError(f"{path} {what} but the manifest says {size}; {again(self.directory)}")
        path = self.directory / "index.npy"
        try:
            dtype, shape = self._index.dtype, self._index.shape
        except (ValueError, TypeError, OverflowError, SyntaxError, TokenError, EOFError) as error:  # by NumPy's header
            raise InputError(f"{path} is not an index ({error}); {again(self.directory)}") from error
        if dtype != INDEX_DTYPE or shape != (len(self),):
            rows = shape[0] if len(shape) == 1 else shape
            raise InputError(
                f"{path} lists {rows} rows of {dtype.itemsize} bytes but the manifest says {len(self)} of "
                f"{INDEX_DTYPE.itemsize}; {again(self.directory)}"
            )


def manifest_sha256(manifest: dict[str, Any]) -> str:
    """Equal for two preparations of the same input with the same settings, whatever the day."""
    content = {name: value for name, value in manifest.items() if name != "created"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
