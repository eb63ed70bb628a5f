"""Two ways of doing the same work, in turn in one process, so that what else the machine does meets both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Paired:
    """Items per CPU second of both ways (medians over the rounds), and their ratio in each round, sorted."""

    ours: float
    other: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        spread = f"({self.ratios[0]:.2f} to {self.ratios[-1]:.2f})"
        return f"{self.ours:14.1f}{self.other:15.1f}{self.ratio:8.2f}   {spread}"


def paired(ours: Callable[[], object], other: Callable[[], object], items: int, rounds: int) -> Paired:
    """items: of one call of either. The first call of each is not counted."""
    ours()
    other()
    pairs = [(items / _cpu(ours), items / _cpu(other)) for _ in range(rounds)]
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Paired(first, second, tuple(sorted(a / b for a, b in pairs)))


def _cpu(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin
