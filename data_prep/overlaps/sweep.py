"""Every row of a prepared split through a function, in several processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from data_prep.workers import outcomes
from vlm.data.canonical import Record
from vlm.data.shards import ShardSet

ALONE = 1000  # rows of a split that are done sooner than other processes start
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Place:
    """A row that is read where it is needed."""

    row: int


class Reading(Generic[Outcome]):
    """The function on places; each process opens the split for itself."""

    def __init__(self, directory: Path, work: Callable[[int, Record, list[bytes]], Outcome]) -> None:
        self.directory, self.work = directory, work

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "work": self.work}

    def __call__(self, place: Place) -> Outcome:
        return self.work(place.row, *self._split.read(place.row))

    @cached_property
    def _split(self) -> ShardSet:
        return ShardSet(self.directory)


def sweep(
    split: ShardSet, work: Callable[[int, Record, list[bytes]], Outcome], workers: int | None = None
) -> Iterator[Outcome]:
    """What `work` gives for row, record and media of every sample, in order.

    work: can be sent to other processes.   workers: how many of them; None = one a CPU core, 0 = none.
    Raises: what `work` raises; RowError for a row that is damaged; RunError if a worker is killed.
    """
    if len(split) < ALONE:
        workers = 0
    count = len(os.sched_getaffinity(0)) if workers is None else workers
    places = ((row, Place(row)) for row in range(len(split)))
    for _, outcome in outcomes(places, Reading(split.directory, work), count):
        yield outcome
