"""Next-token loss."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from vlm.contracts.batch import IGNORE
from vlm.contracts.fusion import Loss


def row_nll(logp: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """logp [R, L-1] of labels [R, L] -> summed negative log-likelihood [R] and target tokens [R] of each row."""
    targets = labels[:, 1:] != IGNORE
    return -(logp * targets).sum(1), targets.sum(1)


def language_loss(logp: Tensor, labels: Tensor, reduction: Literal["token", "sample"] = "token") -> Loss:
    """Negative log-likelihood of the next token, in nats.

    logp [R, L-1]: log-probability of labels[:, 1:].   labels [R, L]: IGNORE where there is no loss.
    reduction: "token" counts target tokens; "sample" counts rows, each with the mean over its own tokens.
    """
    nll, tokens = row_nll(logp, labels)
    if reduction == "sample":
        return Loss(total=(nll / tokens.clamp_min(1)).sum(), count=(tokens > 0).sum())
    return Loss(total=nll.sum(), count=tokens.sum())
