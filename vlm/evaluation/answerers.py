"""How a model is asked, by what it is: one that speaks, or one that compares pictures with texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vlm.contracts.benchmark import Question, Reply
from vlm.contracts.settings import BenchmarkSettings
from vlm.evaluation.answering import Answering
from vlm.evaluation.comparing import Comparing
from vlm.evaluation.prompts import Asked

Answerer = Callable[[Sequence[Question], Callable[[Question], Asked]], Iterator[list[Reply]]]


def speaks(model: Any) -> bool:
    """Whether a loaded model has a language model; otherwise it has a text tower."""
    return getattr(model, "llm", None) is not None


def answerer(
    model: Any, settings: BenchmarkSettings, batch: int, token_budget: int | None = None, seed: int = 0
) -> Answerer:
    """For one benchmark. batch: rows worked off together.   seed: of answers that are drawn."""
    if not speaks(model):
        return Comparing(model, batch, token_budget)
    temperature = settings.temperature if settings.decoding == "sampled" else None
    return Answering(model, batch, token_budget, settings.normalise, temperature, seed)
