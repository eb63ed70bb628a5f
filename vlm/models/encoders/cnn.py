"""A small convolutional encoder whose last map is pooled to a grid of tokens."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Len
from torch import Tensor, nn

from vlm.contracts.errors import Mismatch
from vlm.contracts.ranges import PositiveInt
from vlm.contracts.vision import EncoderOutput, FixedCount, ViewSpec, VisionSpec


class CNN(nn.Module):
    """views [N, C, H, W] -> grid * grid tokens of channels[-1], cells in row-major order.

    Each stage is a 3x3 convolution of stride 2, BatchNorm and ReLU; the last map is pooled by adaptive averages.
    Source: the SupraVL-Nano project.
    """

    def __init__(self, views: ViewSpec, channels: Annotated[list[PositiveInt], Len(1)], grid: PositiveInt) -> None:
        super().__init__()
        self.spec = self.describe(views, channels, grid)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()
            )
            for before, after in zip([views.channels, *channels], channels, strict=False)
        )
        self.grid = grid
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    @staticmethod
    def describe(views: ViewSpec, channels: list[int], grid: int) -> VisionSpec:
        side = min(views.height, views.width)
        for _ in channels:
            side = (side + 1) // 2
        if grid > side:
            raise Mismatch(
                "grid",
                f"{grid} cells a side, but {len(channels)} stages of stride 2 leave a map of {side} pixels; "
                f"choose grid <= {side} or larger encoder.views.size",
            )
        return VisionSpec(width=channels[-1], count=FixedCount(grid * grid))

    def forward(self, views: Tensor, token_budget: int | None = None) -> EncoderOutput:
        maps = views.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            maps = stage(maps)
        cells = nn.functional.adaptive_avg_pool2d(maps, self.grid)
        return EncoderOutput(tokens=cells.flatten(2).transpose(1, 2))
