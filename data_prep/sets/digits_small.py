"""scikit-learn's own 8x8 digits -> 28x28 pictures and their names; read from its wheel, nothing is installed."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from data_prep.reading.archive import files
from data_prep.rows import Inputs, Picture, Row, Skip, question, reply
from data_prep.sets.mnist import NAMES
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

FILE = "digits.csv.gz"
INK = 16  # largest grey value of the source
SIDE = 28  # pixels; a mean over 2x2 blocks gives the 14x14 that digit models read


@dataclass(frozen=True)
class SmallDigits:
    """Lines of 64 grey values 0..16 and a label. checksum: sha256 of digits.csv.gz, None = any file of this form."""

    __pydantic_config__: ClassVar = STRICT
    question: str
    license: str
    checksum: str | None

    def total(self, inputs: Inputs) -> int | None:
        return 1797

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError if the file is missing, damaged or not a table of 65 columns."""
        table = self._table(inputs)
        asked = [question(self.question)]
        for number, line in enumerate(table):
            origin = Origin(FILE, number, str(number))
            if line[-1] > 9:
                yield Skip(None, origin, "label_bad", f"label {line[-1]:g} is no digit")
                continue
            picture = Picture(enlarge(line[:-1].reshape(8, 8)), f"digits-{number}")
            yield Row(None, origin, (picture,), self.license, messages=[*asked, reply(NAMES[int(line[-1])])])

    def _table(self, inputs: Inputs) -> np.ndarray:
        place = inputs.only()
        (found,) = files(place, "" if place.is_dir() else "sklearn/datasets/data/", (FILE,))
        if place.is_dir():
            inputs.note(place / found.name)
        if self.checksum is not None and hashlib.sha256(found.data).hexdigest() != self.checksum:
            raise InputError(
                f"{place}: {FILE} is not the published file (its sha256 differs); for other digits in the same form, "
                "set source.reader.checksum=null"
            )
        try:
            table = np.loadtxt(io.StringIO(gzip.decompress(found.data).decode()), delimiter=",", ndmin=2)
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise InputError(f"{place}: {FILE} is not a compressed table of numbers: {error}") from error
        if table.shape[1] != 65 or table.min() < 0 or table[:, :-1].max() > INK:
            raise InputError(f"{place}: {FILE} must have 64 grey values from 0 to {INK} and a label in each line")
        return table


def enlarge(grey: np.ndarray) -> Image.Image:
    """8x8 values 0..16 -> 28x28 grey picture, ink 255 on 0, bilinear."""
    small = Image.fromarray(np.round(grey * (255 / INK)).astype(np.uint8))
    return small.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
