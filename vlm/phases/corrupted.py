"""The chosen answers alone, behind pictures that show too little: what mDPO compares with."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vlm.contracts.batch import IGNORE, PADDING, VISUAL, Batch
from vlm.data.order import mixed
from vlm.losses.preference import of_pairs

CROP_SHARE = (0.01, 0.2)  # of the area; mDPO crops to less than 20 %


def chosen_alone(batch: Batch) -> Batch:
    """The batch without the rejected answers; segments keep their numbers, views and pictures stay."""
    _, rejected = of_pairs(batch)
    kept = ~torch.isin(batch.segment, rejected) & (batch.segment != PADDING)
    slots = batch.slots
    if len(slots):
        visual = (batch.ids == VISUAL).flatten().nonzero().squeeze(1)
        each = len(visual) // len(slots)  # visual tokens of a slot
        slots = slots[kept.flatten()[visual[::each]]]
    columns = kept.any(0)

    def left(rows: Tensor, padding: int) -> Tensor:
        return rows.where(kept, padding)[:, columns]

    return replace(
        batch,
        ids=left(batch.ids, 0),
        labels=left(batch.labels, IGNORE),
        positions=left(batch.positions, 0),
        segment=left(batch.segment, PADDING),
        slots=slots,
        changed=None if batch.changed is None else batch.changed[:, columns],
    )


def enlarged(batch: Batch, seed: int, step: int) -> Tensor:
    """views [N, C, H, W] -> of each a small part, drawn anew at each step, as large as the view was.

    The part is a function of (seed, step, picture), so it does not depend on micro-batches or ranks.
    """
    height, width = batch.views.shape[-2:]
    parts = []
    for view, picture in zip(batch.views, batch.pictures.tolist(), strict=True):
        draw = np.random.default_rng(mixed(seed, step, picture))
        side = math.sqrt(draw.uniform(*CROP_SHARE))
        rows, columns = max(1, round(side * height)), max(1, round(side * width))
        top, left = int(draw.integers(height - rows + 1)), int(draw.integers(width - columns + 1))
        part = view[None, :, top : top + rows, left : left + columns]
        parts.append(interpolate(part, (height, width), mode="bilinear", align_corners=False))
    return torch.cat(parts)
