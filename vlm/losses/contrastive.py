"""Contrastive losses: a picture's row and its caption's row are to be alike, and unlike all others of the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vlm.contracts.fusion import Loss


def clip_loss(image: Tensor, text: Tensor, same: Tensor, log_scale: Tensor) -> Loss:
    """Softmax over the batch, the mean of both directions, summed over rows.

    image, text: unit rows [B, E].   same: bool [B, B], which captions are equal (its diagonal is true); the target is
    spread evenly over a row's equals.   log_scale: the logarithm of what similarities are multiplied by, one number.
    Returns: total in nats, count = B. Computed in float32 at least.
    Source: Radford et al. 2021 (CLIP), where no captions are equal.
    """
    logits = _similarities(image, text) * _wide(log_scale).exp()
    share = same.to(logits.dtype)
    wanted = share / share.sum(1, keepdim=True) + share / share.sum(0, keepdim=True)
    total = logits.logsumexp(0).sum() + logits.logsumexp(1).sum() - (wanted * logits).sum()
    return Loss(total=total / 2, count=torch.full((), len(image), device=image.device))


def siglip_loss(image: Tensor, text: Tensor, same: Tensor, log_scale: Tensor, bias: Tensor) -> Loss:
    """A yes or no for every pair, summed over all B * B.

    image, text, same, log_scale: as in `clip_loss`.   bias: added to every logit, one number.
    Returns: total in nats, count = B. Computed in float32 at least.
    Source: Zhai et al. 2023 (SigLIP), which starts with scale 10 and bias -10.
    """
    logits = _similarities(image, text) * _wide(log_scale).exp() + _wide(bias)
    total = -logsigmoid(torch.where(same, logits, -logits)).sum()
    return Loss(total=total, count=torch.full((), len(image), device=image.device))


def _similarities(image: Tensor, text: Tensor) -> Tensor:
    # Times 100, what half precision rounds away would move the loss.
    with torch.autocast(image.device.type, enabled=False):
        return _wide(image) @ _wide(text).T


def _wide(numbers: Tensor) -> Tensor:
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))
