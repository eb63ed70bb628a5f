"""A small transformer that turns a caption into one vector."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from vlm.contracts.errors import Mismatch
from vlm.contracts.language import LanguageSpec
from vlm.contracts.ranges import PositiveInt


class TextTower(nn.Module):
    """ids [R, L] -> [R, W], the last token's state after the last LayerNorm.

    Pre-norm blocks with exact GELU, learned positions. causal: a token sees those before it (CLIP) or all (SigLIP);
    the last token sees all in either case, so the last block asks nothing of the others.
    Weights start at Normal(0.02), residual outputs at 0.02 / sqrt(2 * layers).
    Source: Radford et al. 2021, with GELU in place of its approximation.
    """

    def __init__(
        self,
        vocab_size: PositiveInt,
        width: PositiveInt,
        layers: PositiveInt,
        heads: PositiveInt,
        mlp: PositiveInt,
        max_positions: PositiveInt,
        causal: bool,
    ) -> None:
        super().__init__()
        self.spec = self.describe(vocab_size, width, layers, heads, mlp, max_positions, causal)
        self.causal = causal
        self.tok_emb = nn.Embedding(vocab_size, width)
        self.pos_emb = nn.Embedding(max_positions, width)
        self.blocks = nn.ModuleList(Block(width, heads, mlp) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        self.apply(_initialise)
        for block in self.blocks:
            for output in (block.out, block.fc2):  # type: ignore[union-attr]
                nn.init.normal_(output.weight, std=0.02 / (2 * layers) ** 0.5)  # type: ignore[union-attr, arg-type]

    @staticmethod
    def describe(
        vocab_size: int, width: int, layers: int, heads: int, mlp: int, max_positions: int, causal: bool
    ) -> LanguageSpec:
        if width % heads:
            raise Mismatch("heads", f"{heads} heads do not divide width {width}")
        return LanguageSpec(vocabulary=vocab_size, width=width, positions=max_positions)

    def forward(self, ids: Tensor, inside: Tensor) -> Tensor:
        """inside: bool [R, L], true for tokens, which stand in front of all padding; what padding holds never counts."""
        hidden = self.tok_emb(ids) + self.pos_emb.weight[: ids.shape[1]]
        tokens = inside[:, None, None]
        # Behind a causal mask padding is the future, which nobody sees.
        mask = None if self.causal else tokens
        for block in self.blocks[:-1]:
            hidden = block(hidden, mask)
        return self.ln_f(self.blocks[-1](hidden, tokens, inside.sum(1) - 1))


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, mlp), nn.Linear(mlp, width)

    def forward(self, hidden: Tensor, mask: Tensor | None, at: Tensor | None = None) -> Tensor:
        """hidden [R, L, W] -> the same, or [R, W] of the positions `at` [R] alone.

        mask: bool [R, 1, 1, L], what is seen; None for causal.
        """
        x = self.ln1(hidden)
        if at is None:
            q, k, v = self.qkv(x).chunk(3, -1)
        else:
            width = x.shape[-1]
            place = at[:, None, None].expand(-1, 1, width)
            hidden = hidden.gather(1, place)
            q = nn.functional.linear(x.gather(1, place), self.qkv.weight[:width], self.qkv.bias[:width])
            k, v = nn.functional.linear(x, self.qkv.weight[width:], self.qkv.bias[width:]).chunk(2, -1)
        q, k, v = (rows.unflatten(-1, (self.heads, -1)).transpose(1, 2) for rows in (q, k, v))
        seen = scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
        hidden = hidden + self.out(seen.transpose(1, 2).flatten(2))
        hidden = hidden + self.fc2(gelu(self.fc1(self.ln2(hidden))))
        return hidden if at is None else hidden.squeeze(1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
