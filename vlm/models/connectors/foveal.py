"""One token a view, seen through a query: where to look is said by a vector, not by a crop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlm.contracts.errors import Mismatch
from vlm.contracts.ranges import PositiveFloat, PositiveInt
from vlm.contracts.vision import EncoderOutput, FixedCount, VisionSpec


class Foveal(nn.Module):
    """EncoderOutput -> [N, 1, W]: what a query finds in each view; without a query, what the learned static one finds.

    A foveated fusion asks with queries of its own (`glance`), which it makes from the language model's hidden states
    (`next_query`); the first view of a row is asked with `first`.
    scale: of the tokens, so that they are as loud as text embeddings; 0.14 is about SmolLM2's.
    Source: the nanoSmol project (fVLM). Queries are drawn with standard deviation 1: at 0.02 all would look alike.
    """

    spare = ("static", "first", "steer")  # each mode of the fusion leaves another of them idle

    def __init__(self, source: VisionSpec, width: PositiveInt, query_width: PositiveInt, scale: PositiveFloat) -> None:
        super().__init__()
        self.spec = self.describe(source, width, query_width, scale)
        self.scale = scale
        self.static = nn.Parameter(torch.randn(1, query_width))
        self.first = nn.Parameter(torch.randn(1, query_width))
        self.ask = nn.Linear(query_width, source.query_width or 0, bias=False)
        self.tell = nn.Linear(source.width, source.width)
        self.project = nn.Linear(source.width, width)
        self.steer = nn.Linear(width, query_width)

    @staticmethod
    def describe(source: VisionSpec, width: int, query_width: int, scale: float) -> VisionSpec:
        if source.query_width is None:
            raise Mismatch(
                "source",
                "asks its encoder with queries, and this encoder takes none; choose encoder=dinov2_small",
            )
        return VisionSpec(width=width, count=FixedCount(1), query_width=query_width)

    def forward(self, seen: EncoderOutput) -> Tensor:
        return self.glance(seen, self.static.expand(len(seen.tokens), 1, -1))

    def glance(self, seen: EncoderOutput, queries: Tensor, views: Tensor | None = None) -> Tensor:
        """queries [N, R, Q], R of each view, or of those at `views` -> tokens [N, R, W]."""
        assert seen.read is not None  # `describe` has refused encoders without
        return self.scale * self.project(self.tell(seen.read(self.ask(queries), views)))

    def next_query(self, hidden: Tensor) -> Tensor:
        """hidden [..., W] behind a view -> the query [..., Q] for the view that follows."""
        return self.steer(hidden)
