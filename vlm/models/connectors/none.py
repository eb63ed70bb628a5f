"""No connector: beside an encoder that sees nothing."""

from __future__ import annotations

from torch import Tensor, nn

from vlm.contracts.errors import Mismatch
from vlm.contracts.ranges import PositiveInt
from vlm.contracts.vision import EncoderOutput, FixedCount, VisionSpec


class NoConnector(nn.Module):
    """no tokens [N, 0, 1] -> [N, 0, W]; it has no weights."""

    def __init__(self, source: VisionSpec, width: PositiveInt) -> None:
        super().__init__()
        self.spec = self.describe(source, width)

    @staticmethod
    def describe(source: VisionSpec, width: int) -> VisionSpec:
        if source.count != FixedCount(0):
            raise Mismatch("source", "connector=none passes no tokens on; choose encoder=none too, or a connector")
        return VisionSpec(width=width, count=source.count)

    def forward(self, seen: EncoderOutput) -> Tensor:
        return seen.tokens.expand(-1, -1, self.spec.width)
