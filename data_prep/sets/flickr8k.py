"""Flickr8k: 8,091 photographs with five captions each, split by picture as its authors did."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from data_prep.rows import Inputs, Picture, Row, Skip
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

LISTS = {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt"}
TOKENS, TABLE = "Flickr8k.token.txt", "captions.txt"
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
                picture = Picture(path.read_bytes(), name)
                kept = [text for text in texts if text]
                meta = {"captions": kept}
                yield Row(split, origin, (picture,), self.license, caption=kept[0] if kept else "", meta=meta)

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
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        name, mark, caption = line.partition("\t")
        name, hash_mark, which = name.rpartition("#")
        if not mark or not hash_mark or not which.isdigit():
            raise InputError(f"{path} row {number}: {line[:60]!r} is not name.jpg#k, TAB, caption")
        yield name, caption


def _csv_lines(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        for number, fields in enumerate(csv.reader(stream), 1):
            if number == 1 and fields != ["image", "caption"]:
                raise InputError(f"{path} row 1 is {fields}; expected the header image,caption")
            if len(fields) != 2:
                raise InputError(f"{path} row {number} has {len(fields)} fields; expected image,caption")
            if number > 1:
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
