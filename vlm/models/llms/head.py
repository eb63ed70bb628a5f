"""Log-probabilities of targets; the logits of a whole batch never exist at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vlm.contracts.batch import IGNORE

CHUNK_BYTES = 64 * 2**20  # of float32 logits in one chunk; several such tensors exist while it is worked off
CHUNK_ROWS = 64  # a chunk is never smaller: the head's weights are read once a chunk

Head = Callable[[Tensor], Tensor]


def token_logp(hidden: Tensor, targets: Tensor, logits: Head, floor: float | None = None) -> Tensor:
    """hidden [R, L, W], targets [R, L] -> log-probabilities [R, L], 0 where targets is IGNORE.

    The head runs on target positions only, in chunks whose logits backward makes a second time; what fits into one
    chunk is done at once. Half-precision logits are summed in float32, which is then the type of the result.
    logits: [n, W] -> [n, V]; it must not draw random numbers.
    floor: if given, the value is log(p + floor), the gradient still that of log p.
    """
    kept = (targets != IGNORE).flatten().nonzero().squeeze(1)
    rows, wanted = hidden.flatten(0, 1)[kept], targets.flatten()[kept]
    size = chunk_rows(logits(rows[:0]).shape[-1])  # the head alone knows V; no rows cost nothing
    if len(rows) <= size:
        chosen = _chosen(rows, wanted, logits, floor)
    else:
        chunks = zip(rows.split(size), wanted.split(size), strict=True)
        chosen = torch.cat(
            [
                checkpoint(_chosen, chunk, ids, logits, floor, use_reentrant=False, preserve_rng_state=False)
                for chunk, ids in chunks
            ]
        )
    return chosen.new_zeros(targets.numel()).index_copy(0, kept, chosen).view_as(targets)


def chunk_rows(vocabulary: int) -> int:
    """Rows that are worked off together."""
    return max(CHUNK_ROWS, CHUNK_BYTES // (4 * vocabulary))


def _chosen(rows: Tensor, wanted: Tensor, logits: Head, floor: float | None) -> Tensor:
    """rows [n, W], wanted [n] -> [n]."""
    scores = logits(rows)
    scores = scores if scores.dtype == torch.float64 else scores.float()
    chosen = scores.log_softmax(-1).gather(-1, wanted.unsqueeze(-1)).squeeze(-1)
    if floor is not None:
        chosen = chosen + ((chosen.exp() + floor).log() - chosen).detach()
    return chosen
