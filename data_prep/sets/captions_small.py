"""Emoji, stamps and clip art -> pictures with the names that their makers gave them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from data_prep.reading.archive import files
from data_prep.rows import Inputs, Picture, Row, Skip
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

PUBLISHED = {  # part -> name of its file, for from=DIR
    "emoji": "emoji-datasource-google-*.tgz",
    "tuxpaint": "tuxpaint-stamps-default_*.deb",
    "openclipart": "openclipart-png_*.deb",
}
ROWS = {"emoji": 1911, "tuxpaint": 796, "openclipart": 8121}  # as counted in the pinned versions, for progress only
STAMPS = "usr/share/tuxpaint/stamps/"
CLIP_ART = "usr/share/openclipart/png/"
UNNAMED = ("shapes/stars/", "computer/icons/", "special/", "unsorted/", "logos/")  # names there tell nothing
WRONG = {"Sark Flag": "its picture is the flag of Saudi Arabia"}
TWINS = {  # the same pixels stand under a better known name further on
    "Ceuta & Melilla Flag", "Clipperton Island Flag", "Diego Garcia Flag", "Bouvet Island Flag",
    "U.S. Outlying Islands Flag", "FAMILY: MAN, MAN, BOY, BOY", "FAMILY: MAN, BOY, BOY",
    "FAMILY: MAN, BOY", "FAMILY: MAN, MAN, BOY",
}  # fmt: skip


@dataclass(frozen=True)
class CaptionedPictures:
    """The parts that are there, in a fixed order. licenses: part -> licence of its samples."""

    __pydantic_config__: ClassVar = STRICT
    licenses: dict[str, str]

    def total(self, inputs: Inputs) -> int | None:
        return sum(ROWS[part] for part in inputs.places if part in ROWS) or None

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for an archive that is damaged or lacks its files."""
        places = _published(inputs) if "from" in inputs.places else inputs.places
        for part, read in (("emoji", emoji), ("tuxpaint", tuxpaint), ("openclipart", openclipart)):
            if part in places:
                yield from read(places[part], self.licenses[part])


def emoji(place: Path, license: str) -> Iterator[Row | Skip]:
    """One row for each named emoji; skin tones are variants of the same name and not read."""
    root = "" if place.is_dir() else "package/"
    pictures = {found.name: found.data for found in files(place, f"{root}img/google/64/", (".png",))}
    (table,) = files(place, f"{root}emoji.json", (".json",))
    for number, entry in enumerate(json.loads(table.data)):
        file, name = f"{root}img/google/64/{entry['image']}", entry["name"] or ""
        origin = Origin("emoji.json", number, f"emoji/{entry['image']}")
        if entry["category"] == "Component":
            yield Skip(None, origin, "excluded", "a skin tone without a picture of its own")
        elif name in WRONG:
            yield Skip(None, origin, "excluded", f"{name}: {WRONG[name]}")
        elif name in TWINS:
            yield Skip(None, origin, "dup_exact", f"{name} has a better known twin")
        elif file not in pictures:
            yield Skip(None, origin, "media_missing", f"{file} is not in the package")
        else:
            caption = name.lower().replace("keycap: *", "keycap asterisk")
            yield _row(origin, file, pictures[file], caption, license, category=entry["category"])


def tuxpaint(place: Path, license: str) -> Iterator[Row | Skip]:
    """One row for each stamp; its text file begins with the English caption."""
    found = {file.name: file for file in files(place, STAMPS, (".png", ".txt"))}
    names = [name for name in found if name.endswith(".png")]
    for number, name in enumerate(names):
        short = name.removeprefix(STAMPS)
        origin = Origin("stamps", number, f"tuxpaint/{short}")
        text = found.get(name.removesuffix(".png") + ".txt")
        if found[name].link:
            yield Skip(None, origin, "dup_exact", f"a link to {found[name].link}")
        elif text is None:
            yield Skip(None, origin, "annotation_missing", f"{short} has no text file")
        else:
            caption = " ".join(text.data.decode("utf-8").split("\n", 1)[0].split())
            yield _row(origin, short, found[name].data, caption, license, category=short.split("/")[0])


def openclipart(place: Path, license: str) -> Iterator[Row | Skip]:
    """One row for each file name, which is all the text there is."""
    for number, file in enumerate(files(place, CLIP_ART, (".png",))):
        short = file.name.removeprefix(CLIP_ART)
        origin = Origin("png", number, f"openclipart/{short}")
        if file.link:
            yield Skip(None, origin, "dup_exact", f"a link to {file.link}")
        elif short.startswith(UNNAMED):
            yield Skip(None, origin, "excluded", "a folder whose names do not describe the pictures")
        else:
            caption = from_file_name(PurePosixPath(short).stem)
            yield _row(origin, short, file.data, caption, license, category=short.split("/")[0])


def from_file_name(stem: str) -> str:
    """`emperor_penguin_ralf_ste_01` -> `emperor penguin ralf ste`; "" if no word of two letters is left."""
    words = re.sub(r"[_\s-]*\d*$", "", stem).replace("_", " ").replace("-", " ").lower().split()
    return " ".join(words) if any(re.search(r"[^\W\d_]{2}", word) for word in words) else ""


def _row(origin: Origin, name: str, data: bytes, caption: str, license: str, category: str) -> Row:
    return Row(None, origin, (Picture(data, name),), license, caption=caption, meta={"category": category})


def _published(inputs: Inputs) -> dict[str, Path]:
    folder = inputs.places["from"]
    found = {part: sorted(folder.glob(pattern)) for part, pattern in PUBLISHED.items()}
    places = {part: inputs.note(paths[0]) for part, paths in found.items() if paths}
    if not places:
        raise InputError(f"{folder} holds none of {', '.join(PUBLISHED.values())}; put at least one of them there")
    return places
