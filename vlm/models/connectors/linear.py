"""One linear layer from encoder width to language-model width."""

from __future__ import annotations

from torch import Tensor, nn

from vlm.contracts.ranges import PositiveInt
from vlm.contracts.vision import EncoderOutput, VisionSpec


class Linear(nn.Module):
    """tokens [N, T, D] -> [N, T, W]."""

    def __init__(self, source: VisionSpec, width: PositiveInt, bias: bool) -> None:
        super().__init__()
        self.spec = self.describe(source, width, bias)
        self.project = nn.Linear(source.width, width, bias=bias)

    @staticmethod
    def describe(source: VisionSpec, width: int, bias: bool) -> VisionSpec:
        return VisionSpec(width=width, count=source.count, levels=source.levels, query_width=source.query_width)

    def forward(self, seen: EncoderOutput) -> Tensor:
        return self.project(seen.tokens)
