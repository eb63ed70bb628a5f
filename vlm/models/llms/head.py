"""Log-probabilities of targets without logits for positions that carry no loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vlm.contracts.batch import IGNORE


def token_logp(
    hidden: Tensor, targets: Tensor, logits: Callable[[Tensor], Tensor], floor: float | None = None
) -> Tensor:
    """hidden [R, L, W], targets [R, L] -> log-probabilities [R, L], 0 where targets is IGNORE.

    The head runs on target positions only; half-precision logits are summed in float32.
    floor: if given, the value is log(p + floor), the gradient still that of log p.
    """
    kept = (targets != IGNORE).flatten().nonzero().squeeze(1)
    scores = logits(hidden.flatten(0, 1).index_select(0, kept))
    scores = scores if scores.dtype == torch.float64 else scores.float()
    wanted = targets.flatten().index_select(0, kept)
    chosen = scores.log_softmax(-1).gather(-1, wanted.unsqueeze(-1)).squeeze(-1)
    if floor is not None:
        chosen = chosen + ((chosen.exp() + floor).log() - chosen).detach()
    return chosen.new_zeros(targets.numel()).index_copy(0, kept, chosen).view_as(targets)
