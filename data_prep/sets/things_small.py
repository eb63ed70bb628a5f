"""Emoji and stamps -> the kind of thing that each shows, as the makers of the collections sorted them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from data_prep.rows import Inputs, Row, Skip, question, reply
from data_prep.sets.captions_small import CaptionedPictures
from vlm.contracts.settings import STRICT


@dataclass(frozen=True)
class KindsOfThings:
    """One question about every captioned picture of these packages. licenses: part -> licence of its samples."""

    __pydantic_config__: ClassVar = STRICT
    question: str
    licenses: dict[str, str]

    def total(self, inputs: Inputs) -> int | None:
        return CaptionedPictures(self.licenses).total(inputs)

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for an archive that is damaged or lacks its files."""
        for row in CaptionedPictures(self.licenses).rows(inputs):
            if isinstance(row, Skip):
                yield row
            else:
                kind = (row.meta or {})["category"].replace("_", " ").lower()
                meta = {"caption": row.caption}
                yield replace(row, caption=None, messages=[question(self.question), reply(kind)], meta=meta)
