"""Conceptual Captions (CC3M) and Conceptual 12M: lists of captions and addresses -> the pictures that still answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import ClassVar

from data_prep.reading.fetched import Link, Shard, is_fetched, placeholders, read_shard, shards
from data_prep.reading.img2dataset import Fetching, fetch_links
from data_prep.reading.links import SHARES, Order, check_order, links, malformed_links, split_links
from data_prep.reading.tables import count_lines
from data_prep.rows import Inputs, Picture, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

SHOWN = 1000  # rows that a dry run is given
BEFORE = re.compile(r"\s+(?=(?:[.,;:!?%)\]}]|'(?:s|re|ve|ll|d|m)\b|n't\b))")  # white space that tokenization put there
AFTER = re.compile(r"(?<=[(\[{])\s+")


@dataclass(frozen=True)
class ConceptualCaptions:
    """license: of captions and pictures.   order: of the columns.   detokenize: take white space before punctuation out of captions.   fetching: how img2dataset works.

    lists: split -> file name, in the order of reading; if one is None, the source's `holdout` decides about splits.
    """

    __pydantic_config__: ClassVar = STRICT
    license: str
    order: Order
    lists: dict[str, str | None]
    detokenize: bool
    fetching: Fetching

    def total(self, inputs: Inputs) -> int | None:
        return sum(
            count_lines(place) if place.is_file() else sum(shard.links for shard in shards(place))
            for _, place in self._places(inputs.only())
        )

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Of each split in turn, in the order of its list.

        Of img2dataset's output only the tables are written into the manifest: they hold a checksum of every picture.
        Raises: InputError for a list with other columns, a failed fetch, or an output of img2dataset that is not whole.
        """
        places = self._places(inputs.only())
        for _, place in places:
            if place.is_file():
                check_order(place, self.order)  # of all lists, before hours are spent on the first
        for split, place in places:
            decided = None if None in self.lists.values() else split
            if place.is_dir():
                found = shards(place)
                for shard in found if not inputs.dry else ():
                    inputs.note(shard.table)
                yield from self._converted(decided, None, found, placeholders(found[:1] if inputs.dry else found))
            elif inputs.dry:
                yield from self._shown(decided, place)
            else:
                yield from self._fetched(decided, inputs.note(place), inputs)

    def _fetched(self, split: str | None, place: Path, inputs: Inputs) -> Iterator[Row | Skip]:
        home = inputs.scratch / f"{place.stem}-{inputs.files[-1].sha256[:12]}"
        made = split_links(place, self.order, home)
        malformed = (
            Skip(split, Origin(place.name, row, f"row {row}"), "row_malformed", detail)
            for row, detail in malformed_links(made)
        )
        yield from merge(malformed, self._arrived(split, place, made), key=lambda row: row.origin.row)

    def _arrived(self, split: str | None, place: Path, made: Path) -> Iterator[Row | Skip]:
        before: list[Shard] = []
        for share in SHARES:  # a try with limit= ends before the rest is fetched
            found = shards(fetch_links(made, share, self.fetching))
            yield from self._converted(split, place.name, found, placeholders([*before, *found]))
            before = found

    def _places(self, folder: Path) -> list[tuple[str, Path]]:
        """(split, its list or its folder of img2dataset's output)."""
        wanted = {split: name for split, name in self.lists.items() if name is not None}
        if is_fetched(folder) and len(wanted) == 1:
            return [(split, folder) for split in wanted]
        places = []
        for split, name in wanted.items():
            options = [path for path in (folder / split, folder / name) if path.is_file() or is_fetched(path)]
            if not options:
                raise InputError(
                    f"{folder} has neither {name} nor a folder '{split}' with img2dataset's output (00000.tar, 00000.parquet, "
                    f"00000_stats.json, …). Put one there, or let pictures of the other list decide: "
                    f"source.reader.lists.{split}=null 'source.holdout={{split: {split}, every: 200}}'"
                )
            places.append((split, options[0]))
        return places

    def _shown(self, split: str | None, place: Path) -> Iterator[Row | Skip]:
        """The first rows of a list, without pictures: a dry run fetches nothing."""
        for row, link in islice(links(place, self.order), SHOWN):
            origin = Origin(place.name, row, f"row {row}")
            if isinstance(link, Unfit):
                yield Skip(split, origin, link.reason, link.detail)
            else:
                address, text = link
                caption = self._caption(text)[0]
                yield Row(
                    split, origin, (Picture(NotFetched(address, caption), address),), self.license, caption=caption
                )

    def _converted(
        self, split: str | None, table: str | None, found: list[Shard], repeated: dict[str, int]
    ) -> Iterator[Row | Skip]:
        for shard in found:
            for link in read_shard(shard, numbered=table is not None):
                origin = Origin(table or shard.table.name, link.row, link.key)
                copies = repeated.get(link.sha256 or "")
                if link.picture is None:
                    yield Skip(split, origin, "link_dead", f"{link.fault}: {link.address}")
                elif copies:
                    detail = f"{link.address} answers like {copies - 1} other addresses, with the same bytes"
                    yield Skip(split, origin, "media_placeholder", detail)
                else:
                    yield self._row(split, origin, link)

    def _row(self, split: str | None, origin: Origin, link: Link) -> Row:
        assert link.picture is not None
        caption, repaired = self._caption(link.caption)
        meta = {"url": link.address, "sha256": link.sha256, "original_size": link.original_size}
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
