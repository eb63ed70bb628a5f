"""The pictures that training read, as a table in which one picture is looked up by bytes, number, pixels or looks."""

from __future__ import annotations

import hashlib
import logging
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from vlm.contracts.errors import InputError
from vlm.data.canonical import MediumRecord, grouped
from vlm.data.coco import coco_number
from vlm.data.looks import BITS, LEVELS, difference, mirrored, perceptual_hash, pixel_digest, thumbnail
from vlm.data.near_hashes import NearHashes
from vlm.data.pictures import decode
from vlm.data.shards import ShardSet, key_of

log = logging.getLogger(__name__)

SIGNS = ("bytes", "id", "pixels", "looks")  # the surest first
KEPT = 10_000  # rows whose decoded pictures are remembered, 1.2 kB each: many pictures may hash like a blank one
Rows = tuple[int, int]


@dataclass(frozen=True)
class Seen:
    """Where an evaluation picture was trained on.

    by: the same file ("bytes"), the same COCO number ("id"), the same decoded "pixels", or the same "looks": hash and
    thumbnail agree, mirrored too.   set: "<set>/<split>".   key: of the training row.
    """

    by: str
    set: str
    key: str


class TrainingPictures:
    """All pictures that training read, by bytes, number and perceptual hash: 36 bytes each, 8 more with a number.

    They come from the records; a training picture is read and decoded only where its hash makes it a candidate.
    Hash and thumbnails decide as in `data_prep`, and looks decide nothing about sets of drawings (`near: false`).
    """

    def __init__(self, splits: Sequence[Path | tuple[Path, Rows | None]], coco: bool = True) -> None:
        """splits: folders of prepared splits, with the rows (first, end) that were read; None = all of them.

        coco: whether equal COCO numbers in the names are enough; not where other pictures are named like COCO's.
        Raises: InputError for a folder that holds no prepared split, or rows that it does not have.
        """
        self._coco = coco
        self._parts: list[_Part] = []
        self._faults: dict[str, _Faults] = {}
        whole = [given if isinstance(given, tuple) else (given, None) for given in splits]
        for folder, rows in dict.fromkeys(whole):
            self._parts.append(self._part(_Texts(folder), rows))
        self._read()
        self._looks = lru_cache(KEPT)(self._decoded)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def unknown(self) -> list[str]:
        """Training rows that could not be read, so that nobody knows what they show; a sentence a split."""
        return [
            f"{name}: {len(faults.rows)} training rows cannot be read, the first: {faults.first}"
            for name, faults in self._faults.items()
        ]

    def find(self, name: str, data: bytes) -> Seen | None:
        """The surest sign that training read this picture, None if there is none.

        name: its file name, path or id.   data: the encoded file.
        Raises: PictureError if it cannot be decoded.
        """
        return self._by_bytes(data) or self._by_number(name) or self._by_looks(name, data)

    def _by_bytes(self, data: bytes) -> Seen | None:
        digest = hashlib.sha256(data).hexdigest()
        for row in _equal(self._digests, self._rows, _leading(digest)):
            part, own = self._place(row)
            if any(medium.sha256 == digest for medium in part.split.pictures(own)):
                return self._seen("bytes", row)
        return None

    def _by_number(self, name: str) -> Seen | None:
        number = coco_number(name) if self._coco else None
        rows = [] if number is None else _equal(self._numbers, self._numbered, number)
        return self._seen("id", int(rows[0])) if len(rows) else None

    def _by_looks(self, name: str, data: bytes) -> Seen | None:
        """Equal pixels have equal hashes, so they are looked for among the candidates too; the nearest come first."""
        pixels = decode(data, name, min_side=1)
        shown = thumbnail(pixels)
        views = (shown, mirrored(shown))
        digest, alike, reached = None, None, 0
        for bits, turned, place in self._candidates(views):
            if alike is not None and bits > reached:
                break
            row = int(self._rows[place])
            near = self._place(row)[0].near
            if not near and (bits or turned):
                continue
            for look in self._looks(row):
                if look.hash != self._hashes.hashes[place]:
                    continue  # another picture of the row
                digest = digest or pixel_digest(pixels)
                if look.pixels == digest:
                    return self._seen("pixels", row)
                if near and alike is None and difference(look.thumb, views[turned]) < LEVELS:
                    alike, reached = self._seen("looks", row), bits
        return alike

    def _candidates(self, views: tuple[np.ndarray, np.ndarray]) -> list[tuple[int, int, int]]:
        """Bits that differ, which view it is that they differ from, and place, the nearest first."""
        found = []
        for turned, view in enumerate(views):
            wanted = int(perceptual_hash(view), 16)
            places = self._hashes.within(wanted, BITS)
            bits = np.bitwise_count(self._hashes.hashes[places] ^ np.uint64(wanted))
            found += [(int(count), turned, int(place)) for count, place in zip(bits, places, strict=True)]
        return sorted(found)

    def _decoded(self, row: int) -> tuple[_Look, ...]:
        """The pictures of a training row; none, and a note, if it cannot be read."""
        part, own = self._place(row)
        found = []
        try:
            record, payloads = part.split.read(own)
            for medium, files in grouped(record, payloads):
                if medium.type == "image":
                    pixels = decode(files[0], f"{record.key}.{medium.member}", min_side=1)
                    found.append(_Look(int(medium.phash, 16), pixel_digest(pixels), thumbnail(pixels)))
        except InputError as error:
            self._note(part, own, error)
        return tuple(found)

    def _part(self, split: _Texts, rows: Rows | None) -> _Part:
        start, stop = rows or (0, len(split))
        if not 0 <= start < stop <= len(split):
            raise InputError(f"{split.directory} has {len(split)} rows, but {start} to {stop} were to be looked at")
        first = self._parts[-1].end if self._parts else 0
        return _Part(split, start, stop, first, split.manifest.get("near") is not False)

    def _read(self) -> None:
        """Every record once; the table is sorted by the beginning of the files' sha256."""
        hashes, digests, rows, numbers, numbered = array("Q"), array("I"), array("I"), array("I"), array("I")
        for row, medium in self._media():
            hashes.append(int(medium.phash, 16))
            digests.append(_leading(medium.sha256))
            rows.append(row)
            if (number := coco_number(medium.orig)) is not None:
                numbers.append(number)
                numbered.append(row)
        order = np.argsort(np.array(digests, np.uint32), kind="stable")
        self._digests, self._rows = np.array(digests, np.uint32)[order], np.array(rows, np.uint32)[order]
        self._hashes = NearHashes(np.array(hashes, np.uint64)[order])
        order = np.argsort(np.array(numbers, np.uint32), kind="stable")
        self._numbers, self._numbered = np.array(numbers, np.uint32)[order], np.array(numbered, np.uint32)[order]

    def _media(self) -> Iterator[tuple[int, MediumRecord]]:
        """Every still picture with the number of its row among all rows."""
        for part in self._parts:
            if part.split.manifest["counts"].get("media_out") == 0:
                continue
            log.info("%s: what %s rows show is looked up", part.name, f"{part.stop - part.start:,}")
            for own in range(part.start, part.stop):
                try:
                    media = part.split.pictures(own)
                except InputError as error:
                    self._note(part, own, error)
                    continue
                yield from ((part.first + own - part.start, medium) for medium in media)

    def _place(self, row: int) -> tuple[_Part, int]:
        """The split of a row, and its number there."""
        part = self._parts[bisect_right(self._parts, row, key=lambda part: part.first) - 1]
        return part, part.start + int(row) - part.first

    def _seen(self, by: str, row: int) -> Seen:
        part, own = self._place(row)
        return Seen(by, part.name, key_of(part.split.set, own))

    def _note(self, part: _Part, row: int, error: InputError) -> None:
        self._faults.setdefault(part.name, _Faults(str(error))).rows.add(row)


class _Texts(ShardSet):
    """A prepared split whose records are read without their pictures."""

    def pictures(self, row: int) -> list[MediumRecord]:
        """What the record says about its still pictures. Raises: RowError if the record is damaged."""
        shard, offset, _, json_offset, json_size = self._place(row)
        record = self._record(row, self._bytes(row, shard, offset + json_offset, json_size))
        return [medium for medium in record.media if medium.type == "image"]


@dataclass(frozen=True)
class _Part:
    """Rows start .. stop-1 of a split. first: number of its first one among all rows.   near: looks may decide."""

    split: _Texts
    start: int
    stop: int
    first: int
    near: bool

    @property
    def end(self) -> int:
        return self.first + self.stop - self.start

    @property
    def name(self) -> str:
        return f"{self.split.set}/{self.split.split}"


@dataclass(frozen=True)
class _Look:
    """A training picture, decoded. hash: as its record has it."""

    hash: int
    pixels: str
    thumb: np.ndarray


@dataclass(frozen=True)
class _Faults:
    """Rows of a split that cannot be read, and what is wrong with the first."""

    first: str
    rows: set[int] = field(default_factory=set)


def _equal(sorted_values: np.ndarray, owners: np.ndarray, wanted: int) -> np.ndarray:
    value = np.uint32(wanted)  # of the array's own type: another one would make NumPy convert all of it
    return owners[np.searchsorted(sorted_values, value) : np.searchsorted(sorted_values, value, "right")]


def _leading(digest: str) -> int:
    """The first four bytes of a sha256."""
    return int(digest[:8], 16)
