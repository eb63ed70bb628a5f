"""Flickr8k: 8,091 photographs with five captions each, split by picture as its authors did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from data_prep.reading.tables import csv_rows, parquet_rows, tab_rows
from data_prep.rows import FileAt, Inputs, Picture, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

LISTS = {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt"}
TOKENS, TABLE = "Flickr8k.token.txt", "captions.txt"
HUB = {"train": "train", "validation": "val", "test": "test"}  # begin of a parquet file's name -> split
COLUMNS = {"image": "image", **{f"caption_{k}": "string" for k in range(5)}}
HUB_FORM = "image, caption_0 … caption_4"
FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images")  # the first is the published spelling


@dataclass(frozen=True)
class Flickr8k:
    """One row a picture; its first caption trains, all five are kept. license: of the pictures and captions."""

    __pydantic_config__: ClassVar = STRICT
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return 8092

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """In the order of the captions. Raises: InputError for a missing file, or captions of another form."""
        folder = inputs.only()
        if any(folder.rglob("*.parquet")):
            yield from self._hub(inputs)
            return
        split_of = self._splits(inputs)
        pictures = _pictures(folder)
        table, captions = _captions(inputs)
        for number, (name, texts) in enumerate(captions.items()):
            split = split_of.get(name)
            origin = Origin(table, number, name)
            path = pictures / name
            if not path.is_file():
                yield Skip(split, origin, "media_missing", f"{path} is not there")
            elif split is None:
                yield Skip(None, origin, "excluded", "in none of the three split lists")
            else:
                yield self._row(split, origin, Picture(FileAt(path), name), texts)

    def _hub(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """The three splits of the copy on the hub, in its own order."""
        for begin, split in HUB.items():
            tables = sorted(inputs.only().rglob(f"{begin}-*.parquet"))
            if not tables:
                raise InputError(f"{inputs.only()} has no {begin}-*.parquet; the hub's copy has {', '.join(HUB)}")
            for table in tables:
                if not inputs.dry:  # which is to be quick
                    inputs.note(table)
                for number, row in parquet_rows(table, COLUMNS, HUB_FORM):
                    image = row["image"] or {}
                    origin = Origin(table.name, number, image.get("path") or f"row {number}")
                    texts = [" ".join((row[name] or "").split()) for name in COLUMNS if name != "image"]
                    if image.get("bytes") is None:
                        yield Skip(split, origin, "media_missing", "the row has no picture")
                    else:
                        yield self._row(split, origin, Picture(image["bytes"], origin.id), texts)

    def _row(self, split: str, origin: Origin, picture: Picture, texts: list[str]) -> Row:
        kept = [text for text in texts if text]
        caption = kept[0] if kept else ""
        return Row(split, origin, (picture,), self.license, caption=caption, meta={"captions": kept})

    def _splits(self, inputs: Inputs) -> dict[str, str]:
        splits: dict[str, str] = {}
        for split, file in LISTS.items():
            path = _find(inputs.only(), file)
            if path is None:
                raise InputError(
                    f"{inputs.only()} has no {file}; the three split lists of Flickr8k_text.zip decide what is trained "
                    "on and what is tested. Put them there, or use a split of your own: source=caption_table"
                )
            for name in inputs.note(path).read_text("utf-8").split():
                if splits.setdefault(name, split) != split:
                    raise InputError(f"{path}: {name} is also in the list of {splits[name]}; get the lists again")
        return splits


def _captions(inputs: Inputs) -> tuple[str, dict[str, list[str]]]:
    """Name of the table, and picture -> captions in their published order."""
    for file, read in ((TOKENS, _token_lines), (TABLE, _csv_lines)):
        path = _find(inputs.only(), file)
        if path is not None:
            captions: dict[str, list[str]] = {}
            for name, text in read(inputs.note(path)):
                captions.setdefault(name, []).append(" ".join(text.split()))
            return file, captions
    raise InputError(f"{inputs.only()} has neither {TOKENS} (of Flickr8k_text.zip) nor {TABLE} (a table image,caption)")


def _token_lines(path: Path) -> Iterator[tuple[str, str]]:
    """`name.jpg#k<TAB>caption`, k in 0..4, sorted by k within a picture."""
    for number, fields in tab_rows(path):
        name, mark, which = ("", "", "") if isinstance(fields, Unfit) else fields[0].rpartition("#")
        if isinstance(fields, Unfit) or len(fields) != 2 or not mark or not which.isdecimal():
            found = fields.detail if isinstance(fields, Unfit) else repr("\t".join(fields))[:60]
            raise InputError(f"{path} row {number + 1}: {found} is not name.jpg#k, TAB, caption")
        yield name, fields[1]


def _csv_lines(path: Path) -> Iterator[tuple[str, str]]:
    for number, fields in csv_rows(path):
        if number == 0 and fields != ["image", "caption"]:
            raise InputError(f"{path} row 1 is {fields}; expected the header image,caption")
        if isinstance(fields, Unfit) or len(fields) != 2:
            found = fields.detail if isinstance(fields, Unfit) else f"{len(fields)} fields"
            raise InputError(f"{path} row {number + 1} has {found}; expected image,caption")
        if number > 0:
            yield fields[0], fields[1]


def _pictures(folder: Path) -> Path:
    for name in FOLDERS:
        path = _find(folder, name)
        if path is not None and path.is_dir():
            return path
    raise InputError(f"{folder} has no picture folder ({', '.join(FOLDERS)}); unpack Flickr8k_Dataset.zip there")


def _find(folder: Path, name: str) -> Path | None:
    """`name` in the folder, or one folder deeper, as the published archives unpack."""
    return next((path for path in (folder / name, *sorted(folder.glob(f"*/{name}"))) if path.exists()), None)
