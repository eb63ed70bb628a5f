"""Small grey pictures in IDX files (MNIST, Fashion-MNIST) -> a picture and the name of its class."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from data_prep.reading.archive import files
from data_prep.rows import Inputs, Picture, Row, Skip, question, reply
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLITS = {"train": "train", "test": "t10k"}  # our name -> first word of the file names
IMAGES, LABELS = 2051, 2049  # first number of each file, big-endian: unsigned bytes in 3 dimensions, in 1


@dataclass(frozen=True)
class Idx:
    """The four IDX files of MNIST, or of a set that took over its form.

    under: their folder in the package.   question: user text.   names: of the labels, from 0 on.
    checksums: file -> sha256 of its plain bytes, None = any files.
    """

    __pydantic_config__: ClassVar = STRICT
    under: str
    question: str
    names: list[str]
    license: str
    checksums: dict[str, str] | None

    def total(self, inputs: Inputs) -> int | None:
        return None if self.checksums is None else 70_000

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Training rows, then test rows. Raises: InputError for a missing, damaged or foreign file."""
        contents = self._contents(inputs)
        for split, prefix in SPLITS.items():
            file = f"{prefix}-images-idx3-ubyte"
            images = _array(contents, file, IMAGES, 3)
            labels = _array(contents, f"{prefix}-labels-idx1-ubyte", LABELS, 1)
            if len(images) != len(labels):
                raise InputError(
                    f"{file} holds {len(images)} pictures but there are {len(labels)} labels; get both again"
                )
            asked = [question(self.question)]
            for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
                origin = Origin(file, number, str(number))
                if label >= len(self.names):
                    yield Skip(split, origin, "label_bad", f"label {label} has no name; {len(self.names)} are known")
                    continue
                picture = Picture(Image.fromarray(pixels), f"{prefix}-{number}")
                yield Row(split, origin, (picture,), self.license, messages=[*asked, reply(self.names[label])])

    def _contents(self, inputs: Inputs) -> dict[str, bytes]:
        """File name without .gz -> its plain bytes, checked."""
        place = inputs.only()
        found = files(place, "" if place.is_dir() else self.under, ("ubyte", "ubyte.gz"))
        contents = {}
        for file in found:
            path = Path(file.name)
            if place.is_dir():
                inputs.note(place / path)
            contents[path.name.removesuffix(".gz")] = _plain(file.data, place / path)
        for name, digest in (self.checksums or {}).items():
            if name in contents and hashlib.sha256(contents[name]).hexdigest() != digest:
                raise InputError(
                    f"{place}: {name} is not the published file (its sha256 differs); get it again, or, for other "
                    "digits in the same form, set source.reader.checksums=null"
                )
        return contents


def _plain(data: bytes, path: Path) -> bytes:
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a complete gzip file ({error}); get it again") from error


def _array(contents: dict[str, bytes], name: str, magic: int, dimensions: int) -> np.ndarray:
    if name not in contents:
        raise InputError(f"{name} (or {name}.gz) is missing; the four IDX files are needed, found {sorted(contents)}")
    data = contents[name]
    header = np.frombuffer(data[: 4 + 4 * dimensions], dtype=">u4")
    if len(header) != 1 + dimensions or header[0] != magic:
        raise InputError(f"{name} does not begin with {magic}; it is not an IDX file of {dimensions} dimensions")
    shape = tuple(int(size) for size in header[1:])
    expected = 4 + 4 * dimensions + int(np.prod(shape))
    if len(data) != expected:
        raise InputError(f"{name} has {len(data)} bytes, its header promises {expected}; get it again")
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)
