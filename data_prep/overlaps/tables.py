"""What is known about the pictures of one evaluation set: built once, kept beside the data, shared by all processes."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from data_prep.overlaps.questions import choices_digest
from data_prep.overlaps.source_ids import listed_numbers
from data_prep.overlaps.sweep import sweep
from data_prep.pictures.clips import middle_of
from data_prep.pictures.media import reread
from vlm.data.canonical import Record, grouped
from vlm.data.coco import coco_number
from vlm.data.looks import SIDE, mirrored, perceptual_hash
from vlm.data.near_hashes import BANDS, banded
from vlm.data.shards import ShardSet

log = logging.getLogger(__name__)

VERSION = 1  # raised when a table, or what looks are, changes


@dataclass(frozen=True)
class Table:
    """name: as it was asked for.   kind: what it was made of.   pictures: how many.   near: whether looks may decide.

    sha256: of the list, or of the split's manifest without its date.   origin: the list, or the split's folder.
    folder: where its arrays lie:
    ids: COCO numbers [n], sorted, and id_rows: rows of the split that show them [n], of splits only.
    rows: of the split [p].   digests: sha256 of stored bytes and of pixels [2 p, 32], sorted, and owners [2 p].
    thumbs: [p, 32, 32], plain bytes.   hashes: of every picture, then of its mirror image [2 p].
    bands: a part of each hash [5, 2 p], sorted, and members: whose it is [5, 2 p].
    choices: sha256 of questions with choices [c, 32], sorted, and choice_rows: of the split [c].
    """

    name: str
    kind: Literal["split", "list"]
    pictures: int
    sha256: str
    near: bool
    origin: Path
    folder: Path


def table_of_split(name: str, split: ShardSet, cache: Path) -> Table:
    """The table of a prepared split, from `cache` if it is there. Raises: InputError for a row that cannot be read."""
    digest = split.manifest_sha256
    folder = cache / f"{digest}-{VERSION}"
    if not folder.is_dir():
        log.info("%s: looking at %s pictures, once", name, f"{split.manifest['counts'].get('media_out', len(split)):,}")
        with _new(folder) as part:
            _write_split(part, split)
    pictures = len(np.load(folder / "rows.npy", mmap_mode="r"))
    near = split.manifest.get("near") is not False
    return Table(name, "split", pictures, digest, near, split.directory, folder)


def table_of_list(name: str, path: Path, cache: Path) -> Table:
    """The table of a published list. Raises: InputError if it names no pictures."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = cache / f"{digest}-{VERSION}"
    if not folder.is_dir():
        numbers = np.array(sorted(listed_numbers(path)), np.int64)
        with _new(folder) as part:
            np.save(part / "ids.npy", numbers)
    return Table(name, "list", len(np.load(folder / "ids.npy", mmap_mode="r")), digest, False, path, folder)


@dataclass(frozen=True)
class Seen:
    """One evaluation picture. number: of COCO.   digests: of bytes and of pixels.   hashes: of it and its mirror image."""

    number: int | None
    digests: bytes
    hashes: tuple[int, int]
    thumb: bytes


def _look(row: int, record: Record, payloads: list[bytes]) -> tuple[bytes | None, list[Seen]]:
    """Question and choices of a sample, and its pictures; a clip is known by its middle frame."""
    found = []
    for medium, files in grouped(record, payloads):
        name = f"{record.key}.{medium.member}"
        stored = reread(files[0], name) if medium.type == "image" else middle_of(medium, files, name)
        mirror = perceptual_hash(mirrored(np.frombuffer(stored.thumb, np.uint8).reshape(SIDE, SIDE)))
        digests = bytes.fromhex(stored.sha256 + stored.pixels)
        hashes = int(stored.phash, 16), int(mirror, 16)
        found.append(Seen(coco_number(medium.orig), digests, hashes, stored.thumb))
    return choices_digest(record), found


def _write_split(part: Path, split: ShardSet) -> None:
    """Thumbnails go to the disk one by one; all else takes 100 bytes a picture."""
    rows, hashes, mirrors, ids, id_rows = array("I"), array("Q"), array("Q"), array("q"), array("I")
    digests, choices, choice_rows = bytearray(), bytearray(), array("I")
    with (part / "thumbs.raw").open("wb") as thumbs:
        for row, (asked, pictures) in enumerate(sweep(split, _look)):
            if asked is not None:
                choices += asked
                choice_rows.append(row)
            for seen in pictures:
                rows.append(row)
                hashes.append(seen.hashes[0])
                mirrors.append(seen.hashes[1])
                digests += seen.digests
                thumbs.write(seen.thumb)
                if seen.number is not None:
                    ids.append(seen.number)
                    id_rows.append(row)
    order = np.argsort(np.array(ids, np.int64), kind="stable")
    np.save(part / "ids.npy", np.array(ids, np.int64)[order])
    np.save(part / "id_rows.npy", np.array(id_rows, np.uint32)[order])
    np.save(part / "rows.npy", np.array(rows, np.uint32))
    asked = np.frombuffer(choices, np.uint8).reshape(-1, 32)
    order = np.argsort(leading(asked), kind="stable")
    np.save(part / "choices.npy", asked[order])
    np.save(part / "choice_rows.npy", np.array(choice_rows, np.uint32)[order])
    write_digests(part, np.frombuffer(digests, np.uint8).reshape(-1, 32))
    write_hashes(part, np.concatenate([np.array(hashes, np.uint64), np.array(mirrors, np.uint64)]))


def write_digests(part: Path, digests: np.ndarray) -> None:
    """digests: two of each picture, in the order of the pictures [2 p, 32]."""
    order = np.argsort(leading(digests), kind="stable")
    np.save(part / "digests.npy", digests[order])
    np.save(part / "owners.npy", (order // 2).astype(np.uint32))


def write_hashes(part: Path, hashes: np.ndarray) -> None:
    """hashes: as in `Table`."""
    bands, members = zip(*(banded(hashes, number) for number in range(len(BANDS))), strict=True)
    np.save(part / "hashes.npy", hashes)
    np.save(part / "members.npy", np.stack(members))
    np.save(part / "bands.npy", np.stack(bands))


def leading(digests: np.ndarray) -> np.ndarray:
    """The first eight of 32 bytes as one number: sha256 [n, 32] -> uint64 [n]."""
    return np.ascontiguousarray(digests[:, :8]).view(">u8")[:, 0].astype(np.uint64)


def read_thumbs(folder: Path) -> np.ndarray:
    """uint8 [p, 32, 32], mapped."""
    path = folder / "thumbs.raw"
    if not path.stat().st_size:  # nothing can be mapped
        return np.empty((0, SIDE, SIDE), np.uint8)
    return np.memmap(path, np.uint8, "r").view(np.ndarray).reshape(-1, SIDE, SIDE)


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A folder that gets its name when it is complete, also if two processes make it at once."""
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    part.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        if not folder.is_dir():
            os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
