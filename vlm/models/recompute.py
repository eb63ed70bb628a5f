"""Blocks that keep their input only and compute the rest a second time in backward: time for memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def blocks(part: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a part, or of a whole model: the members of its outermost lists of modules."""
    found: list[nn.Module] = []
    for child in part.children():
        found += child if isinstance(child, nn.ModuleList) else blocks(child)
    return found


def recompute(model: nn.Module) -> None:
    """From now on the blocks of `model` run under checkpointing wherever gradients are recorded.

    Values, gradients and the names in the state dict stay what they are; dropout draws the same numbers twice.
    """
    for block in blocks(model):
        # A second forward would move the running statistics of BatchNorm a second time.
        if not any(isinstance(module, _BatchNorm) for module in block.modules()):
            block.forward = partial(_recomputed, block.forward)  # hooks (of sharding, say) stay outside


def _recomputed(forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    # Not a question of train mode: a frozen language model in eval mode passes gradients on to its connector.
    # A cache (known by its length) would be filled a second time.
    cached = any(hasattr(value, "get_seq_length") for value in (*arguments, *named.values()))
    if cached or not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(forward, *arguments, use_reentrant=False, **named)
