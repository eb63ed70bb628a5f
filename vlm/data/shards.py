"""Prepared sets, read row by row: one positioned read of the tar per sample, found through a binary index."""

from __future__ import annotations

import hashlib
import json
import os
import re
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np

from vlm.contracts.errors import InputError
from vlm.contracts.sample import Sample
from vlm.data.canonical import BLOCK, INDEX_DTYPE, Record, from_json, to_sample
from vlm.data.files import Files
from vlm.data.manifest import again, read_manifest

INDEX = "index.npy"
OCTAL = re.compile(rb"[0-7]+")
NAME, SIZE = 100, slice(124, 136)  # of a tar header: bytes of the name, where the octal size stands
HASHED = 64 * 2**20  # bytes of an index that is compared with its checksum at opening: a tenth of a second


class RowError(InputError):
    """A row that cannot be read, for the loader to count; its message is "reason: detail".

    set, key, row: which one.   reason: its name in counts and budgets.   detail: what was found.
    """

    def __init__(self, set: str, key: str, row: int, reason: str, detail: str) -> None:
        self.set, self.key, self.row, self.reason, self.detail = set, key, row, reason, detail
        super().__init__(f"{reason}: {set} row {row} ({key}): {detail}")

    def __reduce__(self) -> tuple[type[RowError], tuple[str, str, int, str, str]]:
        return type(self), (self.set, self.key, self.row, self.reason, self.detail)


class Stored(NamedTuple):
    """text_bytes: of the record.   frames: of all media together, a picture is one.   pixels: of one frame of each."""

    text_bytes: int
    media: int
    frames: int
    pixels: int


class ShardSet:
    """A prepared split, `<set>/<split>/` with manifest.json, index.npy and shard-*.tar, as a sequence of samples.

    Files are opened at the first read in each process, so it can be sent to data workers before or after that.
    A row's own checks find damage to its place, its record and its media; a letter that changed inside of a text is
    found by the checksums of whole shards only (`data_prep.verify`).

    Raises: InputError if the directory is unfinished, empty, or does not agree with its manifest.
    """

    def __init__(self, directory: str | os.PathLike[str], manifest: dict[str, Any] | None = None) -> None:
        """manifest: given only by the writer, which reads its work back before it calls it finished."""
        self.directory = Path(directory)
        self.manifest: dict[str, Any] = read_manifest(self.directory) if manifest is None else manifest
        self.set: str = self.manifest["set"]
        self.split: str = self.manifest["split"]
        self._files = Files(self.directory)
        self._check_sizes()
        self._data_offset = self._check_header()
        self._check_index()

    def __len__(self) -> int:
        return self.manifest["counts"]["samples_out"]

    def __getitem__(self, row: int) -> Sample:
        """Raises: RowError if the row is damaged; IndexError beyond the end."""
        record, payloads = self.read(row)
        return to_sample(record, payloads)

    def text(self, row: int) -> Sample:
        """The sample with empty media: nothing but its record is read. Raises: as `[row]`, for its record."""
        shard, offset, _, json_offset, json_size = self._place(row)
        record = self._record(row, self._bytes(row, shard, offset + json_offset, json_size))
        return to_sample(record, [b""] * sum(len(medium.members) for medium in record.media))

    def read(self, row: int) -> tuple[Record, list[bytes]]:
        """The stored record and the bytes of all members of its media, in one read. Raises: as `[row]`."""
        shard, offset, span, json_offset, json_size = self._place(row)
        block = self._bytes(row, shard, offset, span)
        record = self._record(row, block[json_offset : json_offset + json_size])
        return record, self._payloads(row, record, block, json_offset + _padded(json_size))

    def _place(self, row: int) -> tuple[int, int, int, int, int]:
        """Shard, offset, span, and where in the span the record lies."""
        if not 0 <= row < len(self):
            raise IndexError(f"{self.set}/{self.split} has {len(self)} rows; there is no row {row}")
        shard, offset, span, json_offset, json_size, *_ = self._entry(row)
        shards = self.manifest["shards"]
        if shard >= len(shards) or offset + span > shards[shard]["bytes"]:
            detail = f"the index points at bytes {offset} to {offset + span} of shard {shard}, which are not there"
            raise self._fault(row, "row_malformed", detail)
        return shard, offset, span, json_offset, json_size

    def _bytes(self, row: int, shard: int, offset: int, size: int) -> bytes:
        found = self._files.read(self.manifest["shards"][shard]["name"], offset, size)
        if len(found) != size:
            raise self._fault(row, "row_malformed", f"the shard ends after {len(found)} of {size} bytes")
        return found

    def _record(self, row: int, data: bytes) -> Record:
        try:
            record = from_json(data)
        except ValueError as error:
            raise self._fault(row, "row_malformed", str(error)) from error
        if (record.set, record.split, record.key) != (self.set, self.split, key_of(self.set, row)):
            found = f"{record.set}/{record.split} {record.key}"
            raise self._fault(row, "row_malformed", f"{found} lies there; index and shards do not belong together")
        return record

    def costs(self, row: int) -> Stored:
        """What the index says of a row: no sample is read."""
        if not 0 <= row < len(self):
            raise IndexError(f"{self.set}/{self.split} has {len(self)} rows; there is no row {row}")
        *_, json_size, _tokens, frames, media, pixels = self._entry(row)
        return Stored(json_size, media, frames, pixels)

    @property
    def row_bytes(self) -> float:
        """Mean size of a row in its shard."""
        return sum(shard["bytes"] for shard in self.manifest["shards"]) / len(self)

    def _payloads(self, row: int, record: Record, block: bytes, position: int) -> list[bytes]:
        payloads: list[bytes] = []
        for medium in record.media:
            digest, sizes = hashlib.sha256(), 0
            for member in medium.members:
                name = block[position : position + NAME].rstrip(b"\0").decode("ascii", "replace")
                if name != f"{record.key}.{member}":
                    raise self._fault(row, "media_missing", f"found member {name!r} in place of {member}")
                size = medium.bytes if medium.type != "frames" else self._size(row, name, block, position)
                payloads.append(block[position + BLOCK : position + BLOCK + size])
                digest.update(payloads[-1])
                sizes += size
                position += BLOCK + _padded(size)
            if sizes != medium.bytes or digest.hexdigest() != medium.sha256:
                what = f"{record.key}.{medium.member}"
                raise self._fault(row, "media_undecodable", f"the bytes of {what} changed after they were written")
        return payloads

    def _size(self, row: int, name: str, block: bytes, position: int) -> int:
        """Of one frame, as its tar header says: the record tells the sum alone."""
        digits = block[position + SIZE.start : position + SIZE.stop].rstrip(b"\0 ")
        if not OCTAL.fullmatch(digits) or int(digits, 8) > len(block):
            raise self._fault(row, "row_malformed", f"the header of {name} tells no size")
        return int(digits, 8)

    @cached_property
    def manifest_sha256(self) -> str:
        """Identity of the data: the manifest without its date."""
        return manifest_sha256(self.manifest)

    @property
    def license(self) -> str:
        """All licences in the set as one SPDX expression."""
        return " AND ".join(sorted(self.manifest["license"]["counts"]))

    def close(self) -> None:
        """Closes the files; the next read opens them again."""
        self._files.close()

    def _entry(self, row: int) -> tuple[int, ...]:
        """The index row, in the order of INDEX_DTYPE."""
        data = self._files.read(INDEX, self._data_offset + row * INDEX_DTYPE.itemsize, INDEX_DTYPE.itemsize)
        if len(data) != INDEX_DTYPE.itemsize:
            raise self._fault(row, "row_malformed", "the index ends before it")
        return np.frombuffer(data, INDEX_DTYPE)[0].item()

    def _fault(self, row: int, reason: str, detail: str) -> RowError:
        detail = f"{detail}; {again(self.directory)}"
        return RowError(f"{self.set}/{self.split}", key_of(self.set, row), row, reason, detail)

    def _check_sizes(self) -> None:
        """Compares the files' sizes with the manifest: a copy that broke off is found before training starts."""
        expected = {INDEX: self.manifest["index"]["bytes"]}
        expected |= {shard["name"]: shard["bytes"] for shard in self.manifest["shards"]}
        for name, size in expected.items():
            path = self.directory / name
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                what = "is missing" if found is None else f"has {found} bytes"
                raise InputError(f"{path} {what} but the manifest says {size}; {again(self.directory)}")

    def _check_header(self) -> int:
        """Returns: where the index's rows begin in its file."""
        path = self.directory / INDEX
        try:
            index = np.load(path, mmap_mode="r")  # the header is read, and no row
        except (ValueError, TypeError, OverflowError, SyntaxError, TokenError, EOFError) as error:  # by NumPy's header
            raise InputError(f"{path} is not an index ({error}); {again(self.directory)}") from error
        if index.dtype != INDEX_DTYPE or index.shape != (len(self),):
            rows = index.shape[0] if len(index.shape) == 1 else index.shape
            raise InputError(
                f"{path} lists {rows} rows of {index.dtype.itemsize} bytes but the manifest says {len(self)} of "
                f"{INDEX_DTYPE.itemsize}; {again(self.directory)}"
            )
        return index.offset

    def _check_index(self) -> None:
        """An index of other shards may have the right size; its checksum, or its ends if it is large, tell."""
        path, entry = self.directory / INDEX, self.manifest["index"]
        if "sha256" in entry and entry["bytes"] <= HASHED:
            with path.open("rb") as stream:
                fits = hashlib.file_digest(stream, "sha256").hexdigest() == entry["sha256"]
        else:
            shards = self.manifest["shards"]
            shard, offset, span, *_ = self._entry(len(self) - 1)
            fits = self._entry(0)[:2] == (0, 0) and shard == len(shards) - 1
            fits = fits and offset + span + 2 * BLOCK == shards[shard]["bytes"]  # two empty blocks end an archive
        if not fits:
            raise InputError(f"{path} is not the index that belongs to this manifest; {again(self.directory)}")


def key_of(set: str, row: int) -> str:
    """The name of a kept sample."""
    return f"{set}-{row:010d}"


def manifest_sha256(manifest: dict[str, Any]) -> str:
    """Equal for two preparations of the same input with the same settings, whatever the day."""
    content = {name: value for name, value in manifest.items() if name != "created"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
