"""Retrieval among held-out pairs: whether a picture finds its caption among others, and a caption its picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

GROUP = 64  # pairs that are compared with each other; chance depends on it, so it is no setting


@dataclass(frozen=True)
class Retrieval:
    """Of n pairs, each the mean of both directions. first, among_five [n]: right at rank 1, right among the first 5.

    chance [n]: of being right at rank 1 by guessing.
    """

    first: np.ndarray
    among_five: np.ndarray
    chance: np.ndarray


def groups(rows: int) -> Iterator[slice]:
    """Rows in groups of GROUP; what is left over would be easier and is left out, unless there is no whole group."""
    for begin in range(0, max(1, rows // GROUP) * GROUP, GROUP):
        yield slice(begin, min(begin + GROUP, rows))


def retrieval(image: np.ndarray, text: np.ndarray, same: np.ndarray) -> Retrieval:
    """image, text: unit rows [n, E] of one group.   same: bool [n, n], which captions are equal, so equally right.

    What scores as high as the right one stands before it: an encoder with one vector for everything finds nothing.
    """
    # Equal rows must score equally, whatever order a product adds in.
    scores = (image.astype(np.float64) @ text.astype(np.float64).T).astype(np.float32)
    ahead = np.stack([_ahead(scores, same), _ahead(scores.T, same.T)])
    return Retrieval((ahead < 1).mean(0), (ahead < 5).mean(0), same.mean(1))


def _ahead(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of each row, how many wrong columns score at least as high as the best right one."""
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    return ((scores >= best) & ~right).sum(1)
