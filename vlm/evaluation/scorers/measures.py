"""Figures that several benchmarks report, as sums over rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlm.contracts.benchmark import Measure, Scored


def mean(rows: Sequence[Scored], name: str = "accuracy") -> Measure:
    """The mean of the rows' scores."""
    columns = np.array([[row.score, 1.0] for row in rows])
    return Measure(name, columns, lambda sums: ratio(sums[..., 0], sums[..., 1]), is_mean=True)


def mean_of(values: Sequence[float], counts: Sequence[float], name: str, top: float = 1.0) -> Measure:
    """sum(values) / sum(counts), for what is no score of a row itself."""
    columns = np.column_stack([np.asarray(values, float), np.asarray(counts, float)])
    return Measure(name, columns, lambda sums: ratio(sums[..., 0], sums[..., 1]), top=top)


def macro(rows: Sequence[Scored], classes: Sequence[str], name: str) -> Measure:
    """The mean over classes of each one's mean score. classes: of each row."""
    names = sorted(set(classes))
    columns = np.zeros((len(rows), 2 * len(names)))
    for number, (row, label) in enumerate(zip(rows, classes, strict=True)):
        place = names.index(label)
        columns[number, [2 * place, 2 * place + 1]] = row.score, 1.0

    def combine(sums: np.ndarray) -> np.ndarray:
        shares = ratio(sums[..., 0::2], sums[..., 1::2])
        known = ~np.isnan(shares)  # a resample may have drawn none of a class
        return ratio(np.where(known, shares, 0.0).sum(-1), known.sum(-1))

    return Measure(name, columns, combine)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) != 0)
