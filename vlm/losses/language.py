"""Next-token loss."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from vlm.contracts.batch import IGNORE, Batch
from vlm.contracts.fusion import Loss


def sample_nll(logp: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """logp [R, L-1] of labels[:, 1:] -> summed negative log-likelihood [K] and target tokens [K] of each sample.

    K = len(batch.keys); a sample's tokens are those of all of its segments, wherever in the rows they stand.
    """
    targets = batch.labels[:, 1:] != IGNORE
    sample = batch.sample[batch.segment[:, 1:][targets]]
    nll, tokens = logp.new_zeros(len(batch.keys)), batch.sample.new_zeros(len(batch.keys))
    return nll.index_add(0, sample, -logp[targets]), tokens.index_add(0, sample, tokens.new_ones(len(sample)))


def language_loss(logp: Tensor, batch: Batch, reduction: Literal["token", "sample"] = "token") -> Loss:
    """Negative log-likelihood of the next token, in nats.

    logp [R, L-1]: log-probability of batch.labels[:, 1:], which is IGNORE where there is no loss.
    reduction: "token" counts target tokens; "sample" counts samples, each with the mean over its own tokens.
    """
    if reduction == "sample":
        nll, tokens = sample_nll(logp, batch)
        return Loss(total=(nll / tokens.clamp_min(1)).sum(), count=(tokens > 0).sum())
    targets = batch.labels[:, 1:] != IGNORE
    return Loss(total=-(logp * targets).sum(), count=targets.sum())
