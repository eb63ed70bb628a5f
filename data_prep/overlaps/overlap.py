"""Evaluation pictures that training sets leave out: by their number, by their pixels, by their looks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.overlaps.questions import choices_digest
from data_prep.overlaps.source_ids import LISTS
from data_prep.overlaps.tables import Table, leading, read_thumbs, table_of_list, table_of_split
from data_prep.pictures.media import Stored
from vlm.contracts.errors import InputError
from vlm.data.canonical import Record
from vlm.data.coco import coco_number
from vlm.data.looks import BITS, LEVELS, SIDE, difference
from vlm.data.manifest import read_manifest
from vlm.data.near_hashes import close
from vlm.data.shards import ShardSet


@dataclass(frozen=True)
class Hit:
    """table: name of the evaluation set.   by: "id", "pixels", "looks" or "text".   detail: for people.

    row: of the evaluation split, None if the table was made of a list.
    """

    table: str
    by: str
    detail: str
    row: int | None = None


class Overlap:
    """The test of one training picture against tables; it holds paths only, and maps the arrays where it is used.

    near: whether looks may decide; they do only where the table agrees.
    """

    def __init__(self, tables: tuple[Table, ...], near: bool) -> None:
        self.tables, self.near = tables, near

    def __getstate__(self) -> dict[str, Any]:
        return {"tables": self.tables, "near": self.near}

    def find(self, name: str, stored: Stored) -> Hit | None:
        """The surest sign that the picture is one of an evaluation set. name: its path in the source."""
        return next(self.hits(name, stored), None)

    def hits(self, name: str, stored: Stored) -> Iterator[Hit]:
        """Every sign, the surest first: number, then pixels, then looks, the nearest first."""
        number = coco_number(name)
        if number is not None:
            for known in self._known:
                yield from known.numbered(number)
        splits = [known for known in self._known if known.table.kind == "split"]
        for known in splits:
            yield from known.same(stored)
        for known in splits if self.near else ():
            if known.table.near:
                yield from known.alike(stored)

    def same_choices(self, record: Record) -> Iterator[Hit]:
        """Questions with the same choices in any order, whatever they are shown with."""
        digest = choices_digest(record)
        if digest is not None:
            for known in self._known:
                if known.table.kind == "split":
                    yield from known.asked(digest)

    @cached_property
    def _known(self) -> list[Known]:
        return [Known(table) for table in self.tables]


class Known:
    """The arrays of one table, mapped when they are first asked for."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def _array(self, name: str) -> np.ndarray:
        return np.load(self.table.folder / f"{name}.npy", mmap_mode="r").view(np.ndarray)

    ids = cached_property(lambda self: self._array("ids"))
    rows = cached_property(lambda self: self._array("rows"))
    hashes = cached_property(lambda self: self._array("hashes"))
    bands = cached_property(lambda self: (self._array("bands"), self._array("members")))
    thumbs = cached_property(lambda self: read_thumbs(self.table.folder))

    digests = cached_property(lambda self: self._sorted("digests", "owners"))
    choices = cached_property(lambda self: self._sorted("choices", "choice_rows"))

    def _sorted(self, name: str, owners: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The first eight bytes of each digest as a number, all of it, and whose it is."""
        digests = self._array(name)
        return leading(digests), digests, self._array(owners)

    def numbered(self, number: int) -> Iterator[Hit]:
        """By the number of the picture."""
        first, last = np.searchsorted(self.ids, [number, number + 1])
        for place in range(first, last):
            row = int(self._array("id_rows")[place]) if self.table.kind == "split" else None
            yield Hit(self.table.name, "id", f"COCO number {number}", row)

    def same(self, stored: Stored) -> Iterator[Hit]:
        """By equal stored bytes, or by equal pixels.

        Equal pixels have equal looks, so most pictures are told apart without their pixels being hashed.
        """
        owners = _owners(self.digests, bytes.fromhex(stored.sha256))
        if not owners and (self.close(stored, 0) < len(self.thumbs)).any():
            owners = _owners(self.digests, bytes.fromhex(stored.pixels))
        for owner in owners:
            yield self._hit("pixels", owner, "the same picture as")

    def alike(self, stored: Stored) -> Iterator[Hit]:
        """Pictures, or mirror images of them, that hash and thumbnail both take for this one."""
        places, count = self.close(stored, BITS), len(self.thumbs)
        if not len(places):
            return
        shown, turned = self.thumbs[places % count], (places >= count)[:, None, None]
        thumb = np.frombuffer(stored.thumb, np.uint8).reshape(SIDE, SIDE)
        levels = difference(np.where(turned, shown[:, :, ::-1], shown), thumb)
        for best in np.argsort(levels, kind="stable"):
            if levels[best] >= LEVELS:
                return
            bits = int(np.bitwise_count(self.hashes[places[best]] ^ np.uint64(int(stored.phash, 16))))
            mirror = " the mirror image of" if places[best] >= count else ""
            distance = f"{bits} of 64 bits and {levels[best]:.1f} of 255 from{mirror}"
            yield self._hit("looks", int(places[best]) % count, distance)

    def asked(self, digest: bytes) -> Iterator[Hit]:
        """By question and choices."""
        for row in _owners(self.choices, digest):
            yield Hit(self.table.name, "text", f"the same question and choices as row {row} of {self.table.name}", row)

    def close(self, stored: Stored, bits: int) -> np.ndarray:
        """Places in `hashes` that differ in at most so many bits (up to 4): those share a whole band with it."""
        return close(self.hashes, self._sharing, int(stored.phash, 16), bits)

    def _sharing(self, number: int, value: int) -> np.ndarray:
        values, members = (table[number] for table in self.bands)
        wanted = np.uint16(value)  # of the table's own type: another one would make NumPy convert the whole table
        return members[np.searchsorted(values, wanted) : np.searchsorted(values, wanted, "right")]

    def _hit(self, by: str, owner: int, detail: str) -> Hit:
        row = int(self.rows[owner])
        return Hit(self.table.name, by, f"{detail} row {row} of {self.table.name}", row)


def _owners(table: tuple[np.ndarray, np.ndarray, np.ndarray], digest: bytes) -> list[int]:
    numbers, digests, owners = table
    wanted = np.frombuffer(digest, np.uint8)
    number = leading(wanted[None])[0]
    first, last = np.searchsorted(numbers, number), np.searchsorted(numbers, number, "right")
    found = [int(owners[place]) for place in range(first, last) if np.array_equal(digests[place], wanted)]
    return list(dict.fromkeys(found))


def gather(against: list[str] | None, data: Path, own: str) -> tuple[Table, ...]:
    """The tables to compare with, built where they are not yet.

    against: names SET/SPLIT below `data`, folders of prepared splits, published lists of COCO pictures, and "all" for
    every prepared evaluation split below `data` that has pictures, but those of the set `own`; None = ["all"].
    Raises: InputError for a name that nothing has, with what there is.
    """
    cache = data / ".cache" / "overlap"
    found = _evaluation_splits(data)
    others = [name for name in found if name.split("/")[0] != own]
    asked = ["all"] if against is None else against
    names = dict.fromkeys(name for given in asked for name in (others if given == "all" else [given]))
    return tuple(_table(name, data, cache, found) for name in names)


def describe(tables: tuple[Table, ...]) -> list[dict[str, Any]]:
    """For the manifest: name, kind, pictures, sha256 and near of every table."""
    return [{name: getattr(table, name) for name in ("name", "kind", "pictures", "sha256", "near")} for table in tables]


def _evaluation_splits(data: Path) -> list[str]:
    paths = [path.parent for path in sorted(data.glob("[!.]*/[!.]*/manifest.json"))]
    manifests = {f"{path.parent.name}/{path.name}": read_manifest(path) for path in paths}
    return [name for name, told in manifests.items() if told.get("evaluation") is True and told["counts"]["media_out"]]


def _table(name: str, data: Path, cache: Path, found: list[str]) -> Table:
    for folder in (data / name, Path(name)):
        if (folder / "manifest.json").is_file():
            split = ShardSet(folder)
            return table_of_split(f"{split.set}/{split.split}", split, cache)
    for path in (Path(name), data / name):
        if path.is_file() and path.suffix in LISTS:
            return table_of_list(path.name, path, cache)
    raise InputError(
        f"against: '{name}' is no prepared split below {data}, no folder of one and no list ({', '.join(LISTS)}); "
        f"evaluation splits there: {', '.join(found) or 'none'}"
    )
