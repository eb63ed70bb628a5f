"""Conceptual Captions (CC3M) and Conceptual 12M: lists of captions and addresses -> the pictures that still answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from heapq import merge
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import ClassVar

from data_prep.reading.img2dataset import Fetching, fetch_links
from data_prep.reading.img2dataset_output import Link, Shard, is_fetched, placeholders, read_shard, shards
from data_prep.reading.links import SHARES, LinkList, Order, malformed_links, split_links
from data_prep.rows import Inputs, Picture, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

SHOWN = 1000  # rows that a dry run is given
BEFORE = re.compile(r"\s+(?=(?:[.,;:!?%)\]}]|'(?:s|re|ve|ll|d|m)\b|n't\b))")  # white space that tokenization put there
AFTER = re.compile(r"(?<=[(\[{])\s+")


@dataclass(frozen=True)
class ConceptualCaptions:
    """Rows of each split in turn, in the order of its list.

    license: of captions and pictures.   order: of the columns of a tab-separated list.   lists: split -> its file name,
    in the order of reading; if one is None, the source's `holdout` decides about splits.   tables: split -> pattern of
    the files of the same list in parquet, as the hub has it.   detokenize: take white space before punctuation out of
    captions.   fetching: how img2dataset works.
    """

    __pydantic_config__: ClassVar = STRICT
    license: str
    order: Order
    lists: dict[str, str | None]
    tables: dict[str, str]
    detokenize: bool
    fetching: Fetching

    def total(self, inputs: Inputs) -> int | None:
        return sum(
            sum(place.sizes()) if isinstance(place, LinkList) else sum(shard.links for shard in shards(place))
            for _, place in self._places(inputs.only())
        )

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Of img2dataset's output only the tables are written into the manifest: they hold a checksum of every picture.

        Raises: InputError for a list with other columns, a failed fetch, or an output of img2dataset that is not whole.
        """
        places = self._places(inputs.only())
        for _, place in places:
            if isinstance(place, LinkList):
                place.check()  # of all lists, before hours are spent on the first
        for split, place in places:
            decided = None if None in self.lists.values() else split
            if isinstance(place, Path):
                found = shards(place)
                for shard in found if not inputs.dry else ():
                    inputs.note(shard.table)
                repeated = placeholders(found[:1] if inputs.dry else found)
                for shard in found:
                    for link in read_shard(shard, numbered=False):
                        yield self._converted(decided, Origin(shard.table.name, link.row, link.key), link, repeated)
            elif inputs.dry:
                yield from self._shown(decided, place)
            else:
                yield from self._fetched(decided, place, inputs)

    def _fetched(self, split: str | None, place: LinkList, inputs: Inputs) -> Iterator[Row | Skip]:
        for path in place.files:
            inputs.note(path)
        noted, folder = {file.file: file.sha256 for file in inputs.files}, inputs.only()
        digests = [noted[path.relative_to(folder).as_posix()] for path in place.files]
        digest = sha256("".join(digests).encode()).hexdigest()
        made = split_links(place, inputs.scratch / f"{place.files[0].stem}-{digest[:12]}")
        origin = place.origins()
        malformed = ((row, Skip(split, origin(row), "row_malformed", detail)) for row, detail in malformed_links(made))
        arrived = self._arrived(split, origin, made, inputs.limit)
        yield from map(itemgetter(1), merge(malformed, arrived, key=itemgetter(0)))

    def _arrived(
        self, split: str | None, origin: Callable[[int], Origin], made: Path, limit: int | None
    ) -> Iterator[tuple[int, Row | Skip]]:
        """(row of the list, what became of it)."""
        before: list[Shard] = []
        seen = 0
        for share in SHARES:
            if limit is not None and seen >= limit:
                return  # of a try the rest is not fetched
            found = shards(fetch_links(made, share, self.fetching))
            repeated = placeholders([*before, *found])
            for shard in found:
                for link in read_shard(shard, numbered=True):
                    at = replace(origin(link.row), id=link.key)
                    yield link.row, self._converted(split, at, link, repeated)
            seen, before = sum(shard.links for shard in found), found

    def _places(self, folder: Path) -> list[tuple[str, LinkList | Path]]:
        """(split, its list or its folder of img2dataset's output)."""
        wanted = {split: name for split, name in self.lists.items() if name is not None}
        if is_fetched(folder) and len(wanted) == 1:
            return [(split, folder) for split in wanted]
        places: list[tuple[str, LinkList | Path]] = []
        for split, name in wanted.items():
            pattern = self.tables.get(split)
            if is_fetched(folder / split):
                places.append((split, folder / split))
            elif (folder / name).is_file():
                places.append((split, LinkList((folder / name,), self.order)))
            elif pattern is not None and (tables := sorted(folder.glob(pattern))):
                places.append((split, LinkList(tuple(tables), self.order)))
            else:
                raise InputError(
                    f"{folder} has neither {name} nor {pattern} nor a folder '{split}' with img2dataset's output "
                    "(00000.tar, 00000.parquet, 00000_stats.json, …). Put one there, or let pictures of the other list "
                    f"decide: source.reader.lists.{split}=null 'source.holdout={{split: {split}, every: 200}}'"
                )
        return places

    def _shown(self, split: str | None, place: LinkList) -> Iterator[Row | Skip]:
        """The first rows of a list, without pictures: a dry run fetches nothing."""
        origin = place.origins()
        for row, link in islice(place.links(), SHOWN):
            if isinstance(link, Unfit):
                yield Skip(split, origin(row), link.reason, link.detail)
            else:
                address, text = link
                caption = self._caption(text)[0]
                picture = Picture(NotFetched(address, caption), address)
                yield Row(split, origin(row), (picture,), self.license, caption=caption)

    def _converted(self, split: str | None, origin: Origin, link: Link, repeated: dict[str, int]) -> Row | Skip:
        copies = repeated.get(link.sha256 or "")
        if link.picture is None:
            return Skip(split, origin, "link_dead", f"{link.fault}: {link.address}")
        if copies:
            detail = f"{link.address} answers like {copies - 1} other addresses, with the same bytes"
            return Skip(split, origin, "media_placeholder", detail)
        return self._row(split, origin, link)

    def _row(self, split: str | None, origin: Origin, link: Link) -> Row:
        assert link.picture is not None
        caption, repaired = self._caption(link.caption)
        meta = {
            "url": link.address, "status": link.status, "sha256": link.sha256, "original_size": link.original_size,
        }  # fmt: skip
        return Row(
            split, origin, (Picture(link.picture, link.address),), self.license, caption=caption,
            meta={name: value for name, value in meta.items() if value is not None}, repaired=repaired,
        )  # fmt: skip

    def _caption(self, text: str) -> tuple[str, tuple[str, ...]]:
        folded = " ".join(text.split())
        if not self.detokenize:
            return folded, ()
        joined = AFTER.sub("", BEFORE.sub("", folded))
        return joined, ("detokenized",) if joined != folded else ()


@dataclass(frozen=True)
class NotFetched:
    """The picture of a link in a dry run."""

    address: str
    caption: str

    def read(self) -> bytes:
        raise Unfit("excluded", f"a dry run fetches nothing; caption {self.caption!r}, address {self.address}")
