"""The one place where segments become an attention mask."""

from __future__ import annotations

import torch
from torch import Tensor

from vlm.contracts.batch import PADDING, Batch


def attention_mask(batch: Batch) -> Tensor | None:
    """bool [R, 1, L, L], True = may see; None where plain causal attention is the same.

    A segment sees itself causally and, where it has a parent, all of its ancestors; padding sees itself only,
    so that no row of the softmax is empty. One segment a row with padding on its right needs no mask.
    """
    if batch.parent.numel() == batch.ids.shape[0]:
        return None
    return segment_mask(batch.segment, batch.parent)


def segment_mask(segment: Tensor, parent: Tensor) -> Tensor:
    """segment [R, L], parent [S] -> bool [R, 1, L, L]."""
    length = segment.shape[1]
    query, key = segment.unsqueeze(2), segment.unsqueeze(1)
    position = torch.arange(length, device=segment.device)
    causal = position.unsqueeze(1) >= position
    own = (query == key) & (query != PADDING)
    seen, ancestor = own & causal, query
    while (ancestor != PADDING).any():  # one turn a generation: packing 1, preference pairs 2
        ancestor = torch.where(ancestor == PADDING, PADDING, parent[ancestor.clamp_min(0)])
        seen = seen | ((ancestor == key) & (key != PADDING))
    return (seen | torch.eye(length, dtype=torch.bool, device=segment.device)).unsqueeze(1)
