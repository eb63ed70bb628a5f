"""What img2dataset leaves: for each shard a tar or folder of pictures, a parquet table of all links and their fate."""

from __future__ import annotations

import json
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from data_prep.reading.members import Member
from data_prep.reading.tables import column_names, parquet_rows
from data_prep.rows import FileAt, Unread
from vlm.contracts.errors import InputError

STATISTICS = "_stats.json"  # written last: a shard with it is whole
FORM = "one link: key, url, caption, status, error_message, and what was fetched from it"
COLUMNS = {"key": "string", "url": "string", "caption": "string", "status": "string"}
OPTIONAL = {
    "error_message": "string", "exif": "string", "sha256": "string", "original_width": "int", "original_height": "int",
}  # fmt: skip
MANY = 20  # more different addresses than this with the same bytes: a server's "gone" picture
JPEG, HEAD = b"\xff\xd8", 1 << 16  # how such a file begins, and where its EXIF tags stand
ORIENTATION = {  # as its EXIF reader spells them
    "Mirrored horizontal": 2, "Rotated 180": 3, "Mirrored vertical": 4, "Mirrored horizontal then rotated 90 CCW": 5,
    "Rotated 90 CW": 6, "Mirrored horizontal then rotated 90 CW": 7, "Rotated 90 CCW": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Shard:
    """name: "00012".   links: how many were tried.   first: row of its first link in the list."""

    folder: Path
    name: str
    links: int
    first: int

    @property
    def table(self) -> Path:
        return self.folder / f"{self.name}.parquet"


@dataclass(frozen=True)
class Link:
    """What became of one link. row: in the list.   picture: None = none was had, `fault` says why.

    status: img2dataset's word for its end, "success" with a picture; it keeps no headers and no length of an answer.
    address: "" where not even that is known.   sha256: of the bytes as they were fetched, None if it was not kept.
    original_size: (width, height) in pixels before it was shrunk.
    """

    row: int
    key: str
    status: str
    address: str
    caption: str
    picture: Unread | None
    fault: str
    sha256: str | None
    original_size: tuple[int, int] | None


@dataclass(frozen=True)
class Upright:
    """A JPEG that img2dataset has shrunk: it drops the EXIF tag that says how to turn the picture, this gives it back."""

    content: Unread
    orientation: int

    def read(self) -> bytes:
        data = self.content.read()
        if not data.startswith(JPEG) or b"Exif\0\0" in data[:HEAD]:
            return data  # small JPEG files are kept as they came
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = self.orientation
        tag = exif.tobytes()
        return JPEG + b"\xff\xe1" + (len(tag) + 2).to_bytes(2, "big") + tag + data[len(JPEG) :]


def is_fetched(folder: Path) -> bool:
    """Whether img2dataset wrote here."""
    return any(folder.glob(f"*{STATISTICS}")) or any(folder.glob("[0-9]*.parquet"))


def shards(folder: Path) -> list[Shard]:
    """All shards in order. Raises: InputError for an output that is not finished."""
    names = {path.name.split(".")[0].removesuffix("_stats") for path in folder.glob("[0-9]*")}
    last = max(map(int, filter(str.isdecimal, names)), default=-1)
    found, first = [], 0
    for number in range(last + 1):
        name = f"{number:05d}"
        table, statistics = folder / f"{name}.parquet", folder / f"{name}{STATISTICS}"
        pictures = (folder / f"{name}.tar").is_file() or (folder / name).is_dir()
        if not (table.is_file() and statistics.is_file() and pictures):
            raise InputError(
                f"{folder}: shard {name} is not finished ({name}.parquet, {name}{STATISTICS} and {name}.tar or the folder "
                f"{name} belong together); run img2dataset again with the same arguments, it fetches what is missing"
            )
        found.append(Shard(folder, name, _count(statistics), first))
        first += found[-1].links
    return found


def read_shard(shard: Shard, numbered: bool) -> Iterator[Link]:
    """Its links in the order of the list, which is not that of the table: there they stand as they arrived.

    numbered: the table has a column "row" with the row of the list.
    Raises: InputError for a table of another form, or a tar that lacks pictures of its table.
    """
    columns = {**COLUMNS, "row": "int"} if numbered else COLUMNS
    others = {name: OPTIONAL.get(name, "unread") for name in column_names(shard.table) if name not in columns}
    rows = {_position(shard, row["key"]): row for _, row in parquet_rows(shard.table, columns, FORM, others)}
    if max(rows, default=0) >= shard.links:
        raise InputError(f"{shard.table} has more links than {shard.name}{STATISTICS} counts; they are not of one run")
    pictures, number = _pictures(shard), shard.first - 1
    for position in range(shard.links):
        row = rows.get(position)
        number = row["row"] if row is not None and numbered else number + 1
        if row is None:
            yield Link(number, f"{shard.name}/{position}", "lost", "", "", None, "lost by img2dataset", None, None)
            continue
        key, picture, fault = row["key"], None, ""
        if row["status"] == "success":
            if key not in pictures:
                raise InputError(
                    f"{shard.table} says that {key} was fetched, but its picture is not there; the shard is cut short. "
                    f"Remove {shard.name}* in {shard.folder} and run img2dataset again"
                )
            orientation = ORIENTATION.get(json.loads(row.get("exif") or "{}").get("Image Orientation", ""))
            picture = Upright(pictures[key], orientation) if orientation else pictures[key]
        else:
            fault = f"{row['status']}: {row.get('error_message') or 'no message'}"
        width, height = row.get("original_width"), row.get("original_height")
        size = (width, height) if width and height else None
        yield Link(
            number, key, row["status"], row["url"] or "", row["caption"] or "", picture, fault, row.get("sha256"), size
        )


def placeholders(found: list[Shard]) -> dict[str, int]:
    """sha256 -> number of addresses, of bytes that more than 20 different addresses answered with.

    Holds 8 bytes a link.
    """
    if not all("sha256" in column_names(shard.table) for shard in found):
        return {}
    begins = (int(digest[:16], 16) for shard in found for digest, _ in _digests(shard))
    values, counts = np.unique(np.fromiter(begins, np.uint64), return_counts=True)
    often = set(values[counts > MANY].tolist())
    addresses: defaultdict[str, set[str]] = defaultdict(set)
    for shard in found if often else ():
        for digest, address in _digests(shard):
            if int(digest[:16], 16) in often:
                addresses[digest].add(address)
    return {digest: len(known) for digest, known in addresses.items() if len(known) > MANY}


def _digests(shard: Shard) -> Iterator[tuple[str, str]]:
    """(sha256, address) of what was fetched."""
    unread = dict.fromkeys(column_names(shard.table), "unread")
    wanted = {"sha256": "string", "url": "string"}
    others = {name: kind for name, kind in unread.items() if name not in wanted}
    for _, row in parquet_rows(shard.table, wanted, FORM, others):
        if row["sha256"] and row["url"]:
            yield row["sha256"], row["url"]


def _position(shard: Shard, key: str) -> int:
    """Key = name of the shard, then the position of the link in it."""
    position = key.removeprefix(shard.name)
    if not key.startswith(shard.name) or not (position or "0").isdecimal():
        raise InputError(f"{shard.table}: key {key!r} is not {shard.name} and a number; is it img2dataset's table?")
    return int(position or "0")


def _pictures(shard: Shard) -> dict[str, Unread]:
    """key -> where its picture lies."""
    folder = shard.folder / shard.name
    archive = folder.with_suffix(".tar")
    if not archive.is_file():
        return {path.stem: FileAt(path) for path in folder.iterdir() if path.suffix not in (".json", ".txt")}
    found: dict[str, Unread] = {}
    try:
        with tarfile.open(archive, "r:") as members:
            for member in members:
                key, _, ending = member.name.partition(".")
                if member.isreg() and ending not in ("json", "txt"):
                    at, size = member.offset_data, member.size
                    found[key] = Member(str(archive), member.name, at, size, size, None, False)
    except (tarfile.TarError, EOFError) as error:
        raise InputError(
            f"{archive} is cut short or damaged ({error}); remove {shard.name}* there and run img2dataset again"
        ) from error
    return found


def _count(statistics: Path) -> int:
    try:
        return int(json.loads(statistics.read_text("utf-8"))["count"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{statistics} has no count of links ({error!r}); remove it and run img2dataset again"
        ) from error
