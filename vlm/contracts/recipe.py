"""What a phase is told beside its rates: optimizer, schedule, objective, guards, and what stays of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Len

from vlm.contracts.ranges import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Probability
from vlm.contracts.settings import STRICT

Pair = Annotated[list[Probability], Len(2, 2)]


@dataclass(frozen=True)
class KeepSettings:
    """Checkpoints that stay: the last so many, the best so many, and one every so many steps.

    by: what a validation is judged by, "val/loss" (lowest) or "val/<benchmark>" (highest).
    """

    __pydantic_config__: ClassVar = STRICT
    last: PositiveInt
    best: NonNegativeInt
    every: PositiveInt | None
    by: str = "val/loss"

    def rank(self, metrics: Mapping[str, float]) -> float:
        """Of a validation's metrics; lower is better, not finite if the metric is missing."""
        value = metrics.get(self.by, math.nan)
        return value if self.by == "val/loss" else -value


@dataclass(frozen=True)
class OptimizerSettings:
    """clip_norm: limit of the norm over all gradients; clip_each: part -> limit of each tensor's own norm, applied first.

    decay_all: whether weight decay takes vectors and scalars, too, and not matrices alone.
    """

    __pydantic_config__: ClassVar = STRICT
    name: Literal["adam", "adamw"]
    betas: Pair
    eps: PositiveFloat
    weight_decay: NonNegativeFloat
    clip_norm: PositiveFloat | None
    clip_each: dict[str, PositiveFloat | None] = field(default_factory=dict)
    decay_all: bool = False


@dataclass(frozen=True)
class ScheduleSettings:
    """warmup: share of all steps, rising linearly from 0; floor: last rate as a share of the peak.

    ends: last rate by path of the trainable tree, in place of floor; above the peak, the rate rises to it.
    """

    __pydantic_config__: ClassVar = STRICT
    name: Literal["constant", "linear", "cosine"]
    warmup: Fraction
    floor: Fraction
    ends: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LanguageLossSettings:
    """reduction: what the loss of a step is a mean over."""

    __pydantic_config__: ClassVar = STRICT
    name: Literal["language"]
    reduction: Literal["token", "sample"]


@dataclass(frozen=True)
class ContrastiveLossSettings:
    """clip: softmax over the batch, both ways.   siglip: a yes or no for every pair."""

    __pydantic_config__: ClassVar = STRICT
    name: Literal["clip", "siglip"]


@dataclass(frozen=True)
class PreferenceLossSettings:
    """beta: how firmly the reference holds.   chosen_nll: weight of the chosen answer's own negative log-likelihood (0 = none).

    changed_weight: of ddpo alone, how often a token counts that the other answer does not have.
    """

    __pydantic_config__: ClassVar = STRICT
    name: Literal["sigmoid", "ipo", "ddpo", "mdpo"]
    beta: PositiveFloat
    chosen_nll: NonNegativeFloat
    changed_weight: PositiveFloat | None


@dataclass(frozen=True)
class GuardSettings:
    """When a preference run is stopped. null = never.

    chosen_drift: nats that the held-out chosen answers may lose against the reference, a pair on average.
    score: a metric of the validations, "val/<benchmark>".   score_drop: how much it may lose against its value
    before the first step.
    """

    __pydantic_config__: ClassVar = STRICT
    chosen_drift: PositiveFloat | None
    score: str | None
    score_drop: NonNegativeFloat


@dataclass(frozen=True)
class LoraSettings:
    """A low-rank adapter. alpha: its scale is alpha / rank.   targets: names of the linear layers that it is put around.

    Source: Hu et al. 2021.
    """

    __pydantic_config__: ClassVar = STRICT
    rank: PositiveInt
    alpha: PositiveFloat
    dropout: Probability
    targets: Annotated[list[str], Len(1)]
