"""Benchmarks as validation metrics: a few questions, asked again at every validation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch.distributed.fsdp import FSDPModule

from vlm.evaluation.answerers import answerer
from vlm.evaluation.prepared import Prepared
from vlm.evaluation.prompts import ask
from vlm.evaluation.score import score_rows
from vlm.evaluation.suited import refuse_unsuited

BATCH = 64  # rows decoded together
SEED = 0  # of the draw, so that all runs are asked the same


class Watched:
    """`limit` questions of a benchmark, the same at every validation.

    speaks: whether the model that trains has a language model; None where that is not known yet.
    Raises: InputError as its reader does, and for a benchmark that such a model cannot answer.
    """

    def __init__(self, prepared: Prepared, limit: int, speaks: bool | None = None) -> None:
        self.settings, self.scorer = prepared.settings, prepared.scorer
        self.questions = prepared.questions(limit, SEED)
        if speaks is not None:
            refuse_unsuited(self.settings, self.questions, speaks)

    def score(self, model: Any) -> float:
        """The headline on these questions."""
        answering = answerer(model, self.settings, BATCH, seed=SEED)
        put = partial(ask, settings=self.settings, inline=model.processor.template.inline)
        said = {reply.id: reply for replies in answering(self.questions, put) for reply in replies}
        rows = score_rows(
            self.scorer, self.settings.variants[0], [question.id for question in self.questions],
            [question.group for question in self.questions], [said[question.id].prediction for question in self.questions],
            [question.reference for question in self.questions],
        )  # fmt: skip
        measure = self.scorer.measures(rows)[0]
        return float(measure.combine(measure.columns.sum(0)))


class Watch:
    """model -> {"val/<benchmark>": headline}. Every rank asks the same; parts that are sharded are gathered meanwhile."""

    def __init__(self, watched: Sequence[Watched]) -> None:
        self.watched = list(watched)

    def __call__(self, model: Any) -> dict[str, float]:
        if not self.watched:
            return {}
        sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for module in sharded:
            module.unshard()
        try:
            return {f"val/{one.settings.name}": one.score(model) for one in self.watched}
        finally:
            for module in sharded:
                module.reshard()
