"""No encoder: the model reads text only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlm.contracts.vision import EncoderOutput, FixedCount, ViewSpec, VisionSpec


class NoVision(nn.Module):
    """views [N, C, H, W] -> no tokens, [N, 0, 1]; it has no weights, and pairs with connector=none."""

    def __init__(self, views: ViewSpec) -> None:
        super().__init__()
        self.spec = self.describe(views)

    @staticmethod
    def describe(views: ViewSpec) -> VisionSpec:
        return VisionSpec(width=1, count=FixedCount(0))

    def forward(self, views: Tensor, token_budget: int | None = None) -> EncoderOutput:
        return EncoderOutput(tokens=torch.zeros(views.shape[0], 0, self.spec.width).to(views))
