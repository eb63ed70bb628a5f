"""purevlm's connector: each encoder token becomes several equal visual tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlm.contracts.ranges import PositiveInt
from vlm.contracts.vision import EncoderOutput, TokenCount, VisionSpec


@dataclass(frozen=True)
class RepeatedCount:
    """`repeat` tokens for each token of `source`."""

    source: TokenCount
    repeat: int

    def __call__(self, height: int, width: int, token_budget: int | None) -> int:
        return self.repeat * self.source(height, width, token_budget)


class BilinearRepeat(nn.Module):
    """tokens [N, T, D] -> [N, T * repeat, W]: the product of two linear maps, repeated.

    The copies differ by their position only (the language model adds it). Source: the purevlm project.
    """

    def __init__(self, source: VisionSpec, width: PositiveInt, repeat: PositiveInt) -> None:
        super().__init__()
        self.spec = self.describe(source, width, repeat)
        self.repeat = repeat
        self.vis_proj_l = nn.Parameter(torch.randn(width, source.width) * 0.08)  # 0.08: published
        self.vis_proj_r = nn.Parameter(torch.randn(width, source.width) * 0.08)

    @staticmethod
    def describe(source: VisionSpec, width: int, repeat: int) -> VisionSpec:
        return VisionSpec(width=width, count=RepeatedCount(source.count, repeat))

    def forward(self, seen: EncoderOutput) -> Tensor:
        vectors = (seen.tokens @ self.vis_proj_l.T) * (seen.tokens @ self.vis_proj_r.T)
        return vectors.repeat_interleave(self.repeat, dim=1)
