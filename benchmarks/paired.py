"""Two ways of doing the same work, in turn in one process, so that what else the machine does meets both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

HEADING = f"{'ours / cpu s':>14}{'other / cpu s':>15}{'ratio':>8}   (median, smallest and largest ratio)"


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


def paired(
    ours: Callable[[], object], other: Callable[[], object], items: int, rounds: int, others_items: int | None = None
) -> Paired:
    """items: of one call of either, or of ours alone if others_items is given. First calls are not counted."""
    ours()
    other()
    others_items = items if others_items is None else others_items
    return of_rounds([(items / cpu_seconds(ours), others_items / cpu_seconds(other)) for _ in range(rounds)])


def of_rounds(pairs: list[tuple[float, float]]) -> Paired:
    """pairs: items per CPU second of ours and of the other, a round each."""
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Paired(first, second, tuple(sorted(a / b for a, b in pairs)))


def cpu_seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin
