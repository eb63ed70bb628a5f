"""Optimizer, schedule and clipping as the recipes publish them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vlm.contracts.parts import paths
from vlm.contracts.recipe import OptimizerSettings, ScheduleSettings
from vlm.training.trainable import Trainable


def make_optimizer(model: nn.Module, trainable: Trainable, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """One group a path of the trainable tree, split in two where weight decay spares vectors and scalars."""
    groups = []
    parameters = dict(model.named_parameters())
    for path, members in trainable.groups.items():
        for decays in (True, False):
            chosen = [p for p in map(parameters.__getitem__, members) if (settings.decay_all or p.ndim >= 2) == decays]
            if chosen:
                groups.append(
                    {
                        "params": chosen,
                        "lr": trainable.rates[path],
                        "weight_decay": settings.weight_decay if decays else 0.0,
                        "path": path,
                    }
                )
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    return kind(groups, betas=(settings.betas[0], settings.betas[1]), eps=settings.eps, fused=True)


def make_schedule(
    optimizer: torch.optim.Optimizer, steps: int, settings: ScheduleSettings
) -> torch.optim.lr_scheduler.LambdaLR:
    """For the groups of `make_optimizer`, each with its own end."""
    ends = paths(settings.ends)
    floors = [ends[group["path"]] / group["lr"] if group["path"] in ends else None for group in optimizer.param_groups]
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, [lambda step, floor=floor: rate_factor(step, steps, settings, floor) for floor in floors]
    )


def rate_factor(step: int, steps: int, settings: ScheduleSettings, floor: float | None = None) -> float:
    """Share of the peak rate at optimizer step `step` of `steps`, counted from 0.

    floor: last rate as a share of the peak, in place of the settings'.
    """
    warmup = round(settings.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    if settings.name == "constant":
        return 1.0
    fall = 1 - progress if settings.name == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    floor = settings.floor if floor is None else floor
    return floor + (1 - floor) * fall


def clip(model: nn.Module, settings: OptimizerSettings) -> Tensor:
    """Limit gradients in place: each tensor's own norm (clip_each), then the norm over all. Returns the norm over all
    gradients as they were after clip_each.
    """
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for part, limit in settings.clip_each.items():
        if limit is None:
            continue
        for name, gradient in gradients.items():
            if name.startswith(f"{part}."):
                norm = gradient.norm()
                # 1e-8 guards the division only: a gradient below its limit is left as it is
                gradient.mul_(torch.where(norm > limit, limit / (norm + 1e-8), 1.0))
    total = get_total_norm(gradients.values())
    if isinstance(total, DTensor):
        total = total.full_tensor()
    if settings.clip_norm is not None:
        clip_grads_with_norm_([p for p in model.parameters() if p.grad is not None], settings.clip_norm, total)
    return total
