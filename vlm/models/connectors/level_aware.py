"""A two-layer projection that knows the level of each token."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.contracts.errors import InputError
from vlm.contracts.ranges import PositiveInt
from vlm.contracts.vision import EncoderOutput, VisionSpec

INIT_STD = 0.02
DRAWN = 4096  # unit-normal tokens that `match` measures with
SEED = 0x5CA1E  # none that a run would take: weights drawn from the same numbers would resemble the tokens


class LevelAware(nn.Module):
    """tokens [N, T, D] -> scale * (W2 GELU(W1 (token + level) + b1) + b2), [N, T, W].

    hidden: channels between the layers.   levels: whether a token's level is added; without, the connector is blind to
    it. The levels start at zero. Tokens of an encoder that names no levels are all of level 0.
    scale: saved, but not trained; 1 until `match` sets it.
    Source: the widths are the Keural project's, the rest ours.
    """

    scale: Tensor

    def __init__(self, source: VisionSpec, width: PositiveInt, hidden: PositiveInt, levels: bool) -> None:
        super().__init__()
        self.spec = self.describe(source, width, hidden, levels)
        self.levels = nn.Parameter(torch.zeros(source.levels, source.width)) if levels else None
        self.inner = nn.Linear(source.width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.register_buffer("scale", torch.ones(()))
        for layer in (self.inner, self.outer):
            nn.init.trunc_normal_(layer.weight, std=INIT_STD)
            nn.init.zeros_(layer.bias)

    @staticmethod
    def describe(source: VisionSpec, width: int, hidden: int, levels: bool) -> VisionSpec:
        return VisionSpec(width=width, count=source.count, levels=source.levels, query_width=source.query_width)

    def forward(self, seen: EncoderOutput) -> Tensor:
        return self._projected(seen.tokens, seen.level_ids) * self.scale

    @torch.no_grad()
    def match(self, rms: float) -> None:
        """Set the scale so that tokens of unit-normal channels, of all levels, come out with this root mean square.

        rms: of the language model's embedding table; louder or fainter visual tokens would have to be unlearned first.
        Raises: InputError if `rms` is not positive and finite, or the projection gives nothing to scale.
        """
        weight = self.inner.weight
        drawn = torch.randn(1, DRAWN, weight.shape[1], generator=torch.Generator().manual_seed(SEED))
        level_ids = torch.arange(DRAWN).remainder(self.spec.levels).unsqueeze(0)
        found = self._projected(drawn.to(weight), level_ids.to(weight.device)).double().square().mean().sqrt().item()
        if not 0 < rms < math.inf or not 0 < found < math.inf:
            raise InputError(
                f"connector: visual tokens of root mean square {found:.3g} cannot be brought to the {rms:.3g} of the "
                "language model's embeddings; both must be positive and finite, so look at the weights that were given"
            )
        self.scale.fill_(rms / found)

    def _projected(self, tokens: Tensor, level_ids: Tensor | None) -> Tensor:
        if self.levels is not None:
            tokens = tokens + (self.levels[0] if level_ids is None else F.embedding(level_ids, self.levels))
        return self.outer(F.gelu(self.inner(tokens)))
