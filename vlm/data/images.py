"""The pictures of a prepared split as normalised batches, for encoders that are trained or studied alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlm.contracts.errors import InputError
from vlm.data.pictures import PictureError, decode
from vlm.data.shards import ShardSet
from vlm.data.views import Resize

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FITS: dict[str, Literal["crop", "squash"]] = {"center": "crop", "squash": "squash"}
FILTERS = ("bicubic", "bilinear")
TIMEOUT = 600  # seconds after which a worker that gives nothing is an error


def image_batches(
    dir: str | os.PathLike[str],
    size: int,
    batch: int,
    workers: int = 0,
    crop: Literal["center", "squash"] = "center",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    filter: Literal["bicubic", "bilinear"] = "bicubic",
) -> Iterator[Tensor]:
    """Float32 [batch, 3, size, size], every picture of the split once and in order; the last batch may be shorter.

    dir: `<set>/<split>/` as data preparation writes it.   crop: "center" shows the largest square in the middle,
    "squash" the whole picture, aspect not kept.   mean, std: per channel, of values in 0..1.
    filter: of the resize, antialiased.
    workers: processes that decode, 0 for this one. They start afresh, so a script that asks for them keeps its work
    under `if __name__ == "__main__":`. Batches do not depend on their number.
    Raises: InputError for an argument out of range, a split that is not there, and, when its batch is reached, for a
    picture that cannot be read, with set, row and reason.
    """
    _check(size, batch, workers, crop, mean, std, filter)
    views = Resize(size, list(mean), list(std), fit=FITS[crop], filter=filter)
    return _finished(_Batches(ShardSet(dir), views, batch), workers)


class _Batches(Dataset):
    """Batch number -> uint8 [B, 3, H, W], or the message of what cannot be read.

    A message instead of an error: an error from a worker arrives with its traceback as text.
    """

    def __init__(self, shards: ShardSet, views: Resize, batch: int) -> None:
        self.shards, self.views, self.batch = shards, views, batch
        media = np.load(shards.directory / "index.npy", mmap_mode="r")["media"]
        self.begins = np.concatenate([[0], np.cumsum(media, dtype=np.int64)])  # first picture of each row

    def __len__(self) -> int:
        return -(-int(self.begins[-1]) // self.batch)

    def __getitem__(self, number: int) -> Tensor | str:
        first = number * self.batch
        pictures = range(first, min(first + self.batch, int(self.begins[-1])))
        try:
            return torch.stack(
                [view for row, found in groupby(pictures, self._row) for view in self._views(row, found)]
            )
        except InputError as error:
            return str(error)

    def _row(self, picture: int) -> int:
        return int(np.searchsorted(self.begins, picture, side="right")) - 1

    def _views(self, row: int, pictures: Iterator[int]) -> Iterator[Tensor]:
        record, payloads = self.shards.read(row)
        if any(medium.type != "image" for medium in record.media):
            raise InputError(f"{self.shards.directory} row {row} holds a clip; batches are of pictures")
        for picture in pictures:
            data = payloads[picture - int(self.begins[row])]
            try:
                (view,) = self.views(decode(data, record.key, least=self.views.least))
            except PictureError as error:
                where = f"{self.shards.set}/{self.shards.split} row {row}"
                remedy = "leave the picture out of the source and prepare the set again"
                raise InputError(f"{error.reason}: {where}: {error.detail}; {remedy}") from error
            yield view


def _finished(batches: _Batches, workers: int) -> Iterator[Tensor]:
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="forkserver" if workers else None,
        timeout=TIMEOUT if workers else 0,
    )
    for views in loader:
        if isinstance(views, str):
            raise InputError(views)
        yield batches.views.finish(views)


def _check(
    size: int, batch: int, workers: int, crop: str, mean: Sequence[float], std: Sequence[float], filter: str
) -> None:
    if size < 1 or batch < 1 or workers < 0:
        raise InputError(f"size={size}, batch={batch}, workers={workers}: size and batch start at 1, workers at 0")
    if crop not in FITS:
        raise InputError(f"crop={crop!r}; choose one of {', '.join(FITS)}")
    if filter not in FILTERS:
        raise InputError(f"filter={filter!r}; choose one of {', '.join(FILTERS)}")
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise InputError(f"mean={list(mean)}, std={list(std)}: give three numbers each, those of std above 0")
