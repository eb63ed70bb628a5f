"""What every form is made from, and what every form gives: files with their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data_prep.forms.facts import Fact, known
from data_prep.reading.shapes import Drawing, drawings
from data_prep.rows import Inputs


@dataclass(frozen=True)
class File:
    """name: path in the form's folder, with "/".   rows: of a table."""

    name: str
    data: bytes
    rows: int = 0


@dataclass(frozen=True)
class Material:
    """places: package -> its archive or folder, of those that the chosen forms need.   areas: maps drawn at most."""

    places: dict[str, Path]
    areas: int | None = None

    @cached_property
    def test(self) -> Sequence[Drawing]:
        """The 1,000 held-out pictures, all of them."""
        return list(drawings(self._inputs, "test"))

    @cached_property
    def facts(self) -> list[Fact]:
        """Those of the held-out pictures whose colour and shape are stated: 944."""
        return known(self.test)

    @cached_property
    def train(self) -> list[Fact]:
        """Of the training pictures; they only tell what is common."""
        return known(drawings(self._inputs, "train"))

    @property
    def _inputs(self) -> Inputs:
        return Inputs({"data": self.places["easy-vqa"]})
