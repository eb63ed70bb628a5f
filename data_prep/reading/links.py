"""Lists of captions and addresses, tab-separated or parquet: checked, and divided for the program that fetches."""

from __future__ import annotations

import fcntl
import json
import logging
import re
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import IO, Literal

import pyarrow as pa
from pyarrow import parquet

from data_prep.reading.tables import count_lines, parquet_rows, row_count, tab_rows
from data_prep.rows import Unfit
from vlm.contracts.errors import InputError
from vlm.data.canonical import Origin

log = logging.getLogger(__name__)
Order = Literal["caption_first", "address_first"]
OTHER: dict[Order, str] = {"caption_first": "CC12M", "address_first": "CC3M"}  # who has the columns the other way round
FIRST, SHARE = 1000, 0.99  # in the first so many rows this share of a column of addresses must be addresses
ADDRESS = re.compile(r"https?://[^\s/?#]+([/?#].*)?", re.IGNORECASE)
A_FILE = 1_000_000  # links of one file; img2dataset holds a whole file in memory
A_SHARD = 10_000  # links of one shard of pictures
SHARES = ("first", "rest")
PARQUET = ".parquet"
COLUMNS = {"image_url": "string", "caption": "string"}
TABLE = pa.schema([("url", pa.string()), ("caption", pa.string()), ("row", pa.int64())])


def check_order(path: Path, order: Order) -> None:
    """Raises: InputError if the first 1,000 rows have no column of addresses, two, or the other one than `order`."""
    rows = [fields for _, fields in islice(tab_rows(path), FIRST) if not isinstance(fields, Unfit) and len(fields) > 1]
    if not rows:
        raise InputError(f"{path}: none of the first {FIRST} rows has a tab; a row is a caption and an address")
    shares = [sum(bool(ADDRESS.fullmatch(row[at].strip())) for row in rows) / len(rows) for at in (0, -1)]
    found = [share >= SHARE for share in shares]
    if (found == [True, False] and order == "caption_first") or (found == [False, True] and order == "address_first"):
        raise InputError(
            f"{path}: columns are swapped: this looks like {OTHER[order]} order "
            f"({'address' if found[0] else 'caption'} first). Is it the file of this set? If it is, set source.reader.order"
        )
    if sum(found) != 1:
        raise InputError(
            f"{path}: in the first {len(rows)} rows {shares[0]:.0%} of the first and {shares[1]:.0%} of the last fields "
            f"are addresses; at least {SHARE:.0%} of one and fewer of the other must be. Row 0: {'<TAB>'.join(rows[0])[:120]}"
        )


@dataclass(frozen=True)
class LinkList:
    """A published list in one file or, in order, several.

    order: of the columns of a tab-separated file; those of a parquet file have names.
    """

    files: tuple[Path, ...]
    order: Order

    def check(self) -> None:
        """Raises: as check_order."""
        for path in self.files:
            if path.suffix != PARQUET:
                check_order(path, self.order)

    def links(self) -> Iterator[tuple[int, tuple[str, str] | Unfit]]:
        """(row from 0 over all files, (address, caption)) of each row. Raises: as check, and as parquet_rows."""
        begin = 0
        for path in self.files:
            row = -1
            for row, fields in _parquet_fields(path) if path.suffix == PARQUET else _tab_fields(path, self.order):
                yield begin + row, _link(fields)
            begin += row + 1

    def sizes(self) -> list[int]:
        """Rows of each file."""
        return [row_count(path) if path.suffix == PARQUET else count_lines(path) for path in self.files]

    def origins(self) -> Callable[[int], Origin]:
        """Row over all files -> where it stands."""
        if len(self.files) == 1:
            name = self.files[0].name
            return lambda row: Origin(name, row, f"row {row}")
        ends = list(accumulate(self.sizes()))

        def origin(row: int) -> Origin:
            number = bisect_right(ends, row)
            within = row - (ends[number - 1] if number else 0)
            return Origin(self.files[number].name, within, f"row {row}")

        return origin


def _tab_fields(path: Path, order: Order) -> Iterator[tuple[int, tuple[str, str] | Unfit]]:
    """The caption may hold tabs, the address never does."""
    check_order(path, order)
    for row, fields in tab_rows(path):
        if isinstance(fields, Unfit):
            yield row, fields
        elif len(fields) < 2:
            yield row, Unfit("row_malformed", f"no tab: {fields[0][:80]!r}")
        else:
            first = order == "address_first"
            yield row, (fields[0 if first else -1], "\t".join(fields[1:] if first else fields[:-1]))


def _parquet_fields(path: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    for row, content in parquet_rows(path, COLUMNS, "image_url and caption, as on the hub"):
        yield row, (content["image_url"] or "", content["caption"] or "")


def _link(fields: tuple[str, str] | Unfit) -> tuple[str, str] | Unfit:
    if isinstance(fields, Unfit):
        return fields
    address = fields[0].strip()
    if not ADDRESS.fullmatch(address):
        return Unfit("row_malformed", f"{address[:80]!r} is not an address (http://… or https://…)")
    return address, fields[1]


def split_links(published: LinkList, home: Path) -> Path:
    """The list as parquet files below `home`, and its malformed rows; made once.

    The first shard's links lie by themselves in "first", all others in "rest", so that a try need not fetch them all.
    Parquet, because img2dataset reads tab-separated files with quoting, which captions with quotation marks break.
    """
    made, begun = home / "links", home / "links.part"
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / "lock"):
        if made.is_dir():
            return made
        shutil.rmtree(begun, ignore_errors=True)
        for share in SHARES:
            (begun / share).mkdir(parents=True)
        malformed: list[tuple[int, str]] = []
        good = _well_formed(published.links(), malformed)
        blocks = iter(lambda: list(islice(good, A_SHARD)), [])
        _write(begun / "first" / "00000.parquet", islice(blocks, 1))
        for number, block in enumerate(blocks):
            others = islice(blocks, A_FILE // A_SHARD - 1)
            _write(begun / "rest" / f"{number:05d}.parquet", chain([block], others))
        (begun / "malformed.json").write_text(json.dumps(malformed), "utf-8")
        begun.rename(made)
        return made


def malformed_links(made: Path) -> list[tuple[int, str]]:
    """(row, what is wrong) of the rows that `split_links` left out."""
    return [(row, detail) for row, detail in json.loads((made / "malformed.json").read_text("utf-8"))]


@contextmanager
def locked(path: Path) -> Iterator[IO[bytes]]:
    """Held by this process and by the img2dataset that it starts, whose process group is written into it; waits for it."""
    with path.open("a+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            group = stream.read().decode() or "unknown"
            told = (
                "another preparation, or the img2dataset that it left (process group %s), works in %s; waiting for it"
            )
            log.warning(told, group, path.parent)
            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.truncate(0)
        yield stream


def _well_formed(
    rows: Iterator[tuple[int, tuple[str, str] | Unfit]], malformed: list[tuple[int, str]]
) -> Iterator[dict[str, str | int]]:
    for row, link in rows:
        if isinstance(link, Unfit):
            malformed.append((row, link.detail))
        else:
            yield {"url": link[0], "caption": link[1], "row": row}


def _write(path: Path, blocks: Iterable[list[dict[str, str | int]]]) -> None:
    with parquet.ParquetWriter(path, TABLE) as writer:
        for block in blocks:
            writer.write_table(pa.Table.from_pylist(block, schema=TABLE))
