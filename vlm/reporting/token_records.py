"""What a page about tokens shows: pictures, their cuts at each budget, seconds, and scores that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

NAMES = ("global", "region", "detail")  # of level ids, where an encoder has levels


@dataclass(frozen=True)
class Cut:
    """A picture at one budget.

    boxes [T, 4]: x and y of the centre, width and height, as parts of the picture.   levels [T]: level ids.
    saliency [T], or None from an encoder that has none.
    """

    boxes: np.ndarray
    levels: np.ndarray
    saliency: np.ndarray | None

    def shares(self) -> dict[int, tuple[int, float]]:
        """Level id -> tokens, and their share of the picture's area."""
        areas = self.boxes[:, 2] * self.boxes[:, 3]
        return {
            int(level): (int((self.levels == level).sum()), float(areas[self.levels == level].sum()))
            for level in np.unique(self.levels)
        }


@dataclass(frozen=True)
class Seen:
    """A picture as the encoder sees it. view: uint8 [H, W, 3], or [H, W] of one channel."""

    name: str
    view: np.ndarray
    cuts: Sequence[Cut]


@dataclass(frozen=True)
class Scores:
    """A benchmark's headline by budget.

    name: with what sets it apart.   n: questions or pairs.   points: budget -> score and its 95 % interval, None where
    none is known.   chance: score of guessing, if it is known.   limit: questions that were asked, None for all.
    """

    benchmark: str
    name: str
    metric: str
    n: int
    top: float
    points: Mapping[int, tuple[float, tuple[float, float] | None]]
    chance: float | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Looked:
    """A whole page.

    side, own_side: height and width of the views shown, and of the model's own.   own_budget: what the encoder gives
    where none is named.   of, source: how many pictures there were, and where.   times: budget -> seconds of each pass.
    reachable: the budgets that an evaluation could ask with.   benchmark: one that would measure this model.
    """

    model: str
    encoder: str
    side: tuple[int, int]
    own_side: tuple[int, int]
    own_budget: int
    pictures: Sequence[Seen]
    of: int
    source: str
    times: Mapping[int, Sequence[float]]
    machine: str
    on_cpu: bool
    scores: Sequence[Scores]
    reachable: Sequence[int]
    benchmark: str
