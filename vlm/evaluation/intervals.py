"""How far a number can be trusted: proportions, means over seeds, and paired differences clustered by picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, ndtri, stdtrit


def wilson(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval (low, high) of a proportion; it stays inside 0..1 and is not empty at 0 or n successes.

    Raises: ValueError unless 0 <= successes <= n and n > 0.
    Source: Wilson 1927.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"wilson: {successes} successes of {n} are no proportion; n > 0 and 0 <= successes <= n")
    z = float(ndtri((1 + confidence) / 2))
    share = successes / n
    shrink = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The ends are exactly 0 and 1 at 0 and n successes; rounding must not leave a crumb there.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of independent repeats (seeds) and its Student-t interval: (mean, low, high).

    One value tells nothing about the spread, so its interval is unbounded.
    Raises: ValueError without values.
    """
    count = len(values)
    if count == 0:
        raise ValueError("mean_interval: no values; give at least one")
    mean = math.fsum(values) / count
    if count == 1:
        return mean, -math.inf, math.inf
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * error
    return mean, mean - half, mean + half


def paired_gain(delta_sums: ArrayLike, token_counts: ArrayLike, clusters: ArrayLike) -> tuple[float, float]:
    """Gain in nats a token over paired samples, and its standard error clustered by picture: (gain, error).

    delta_sums [n]: loss of a sample under the other condition minus its own, summed over its tokens, nats.
    token_counts [n]: target tokens of the sample.   clusters [n]: what makes samples dependent, the picture's id.
    The gain is a ratio of sums, so long answers count by their tokens; samples of one picture count as one draw.
    With fewer than two clusters the error is infinite.
    Raises: ValueError if the lengths differ or there are no tokens.
    Source: linearised ratio estimator of cluster sampling (Cochran 1977, chapters 6 and 9A).
    """
    deltas, tokens = np.asarray(delta_sums, dtype=float), np.asarray(token_counts, dtype=float)
    names, cluster_of = np.unique(np.asarray(clusters), return_inverse=True)
    if deltas.ndim != 1 or not deltas.shape == tokens.shape == cluster_of.shape:
        raise ValueError(
            f"paired_gain: delta_sums {deltas.shape}, token_counts {tokens.shape} and clusters {cluster_of.shape} "
            "must be rows of one length"
        )
    total = tokens.sum()
    if not total > 0:
        raise ValueError("paired_gain: token_counts holds no token; leave out samples without targets")
    gain = float(deltas.sum() / total)
    count = len(names)
    if count < 2:
        return gain, math.inf
    residuals = np.bincount(cluster_of, weights=deltas - gain * tokens, minlength=count)
    return gain, float(np.sqrt(count / (count - 1) * np.square(residuals).sum()) / total)


class Resamples:
    """Draws of groups with replacement (bootstrap), the same draws for every figure, so that figures can be paired.

    groups [n]: what makes rows dependent; a drawn group brings all its rows.
    Source: Efron & Tibshirani 1993, percentile interval; groups as in cluster bootstrap.
    """

    def __init__(self, groups: Sequence[str], draws: int = 2000, seed: int = 0) -> None:
        self.draws, self.seed = draws, seed
        names, self.group_of = np.unique(np.asarray(groups), return_inverse=True)
        self.count = len(names)

    def sums(self, columns: np.ndarray) -> np.ndarray:
        """columns [n, K] -> [draws, K], the sums over the rows of each draw."""
        within = np.zeros((self.count, columns.shape[1]))
        np.add.at(within, self.group_of, columns)
        generator = np.random.default_rng(self.seed)
        found = np.empty((self.draws, columns.shape[1]))
        for draw in range(self.draws):
            times = np.bincount(generator.integers(0, self.count, self.count), minlength=self.count)
            found[draw] = times @ within
        return found


def percentile_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Of resampled figures; those that were undefined in a draw (NaN) are left out. (NaN, NaN) if all were."""
    known = values[~np.isnan(values)]
    if not len(known):
        return math.nan, math.nan
    tail = 50 * (1 - confidence)
    low, high = np.percentile(known, [tail, 100 - tail])
    return float(low), float(high)


def mcnemar(first_only: int, second_only: int) -> float:
    """p of the exact test whether two models are right equally often; arguments: rows that only one has right.

    Source: McNemar 1947, its exact binomial form.
    """
    count = first_only + second_only
    return 1.0 if count == 0 else min(1.0, float(2 * bdtr(min(first_only, second_only), count, 0.5)))
