"""How probable a model finds given answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from vlm.contracts.batch import IGNORE
from vlm.contracts.example import Example
from vlm.models.generation import evaluating
from vlm.models.vlm import VLM


@torch.no_grad()
def log_probabilities(
    model: VLM, examples: Sequence[Example], counts: Sequence[int], token_budget: int | None = None
) -> list[list[tuple[float, int]]]:
    """For each example the log-probability of each of its answers as a whole, end included, in nats, and its tokens.

    examples: of `Processor.alternatives`, with finished views.   counts: alternatives of each.
    """
    parameter = next(model.parameters())
    batch = model.processor.collate(examples, token_budget).to(parameter.device)
    batch = replace(batch, views=batch.views.to(parameter.dtype))
    with evaluating(model):
        logp = model(batch).logp.double()  # sums of many terms are compared with each other
    segments = batch.segment[:, 1:]
    answered = batch.labels[:, 1:] != IGNORE
    sums = logp.new_zeros(len(batch.parent)).index_add(0, segments[answered], logp[answered])
    tokens = torch.zeros_like(sums).index_add(0, segments[answered], torch.ones_like(logp[answered]))
    found, first = [], 0
    for example, count in zip(examples, counts, strict=True):
        first += len(example.parent)
        own = range(first - count, first)  # the last ones are the answers; what they share stands before
        found.append([(float(sums[segment]), int(tokens[segment])) for segment in own])
    return found
