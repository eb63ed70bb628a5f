"""A GPT-2-style decoder with learned positions and tied embeddings."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vlm.contracts.errors import Mismatch
from vlm.contracts.language import LanguageSpec
from vlm.contracts.ranges import PositiveInt, Probability
from vlm.models.attention import attend, dot_product, kept
from vlm.models.llms.head import token_logp
from vlm.models.mask import Spans


class GPT2(nn.Module):
    """embeds [R, L, W] + positions -> hidden [R, L, W]: pre-norm blocks, exact GELU, a last LayerNorm.

    The head is the embedding table. Weights start at Normal(0.02), residual outputs at 0.02 / sqrt(2 * layers), so
    that the first loss is that of a uniform guess. Source: the SupraVL-Nano project; initialisation as in GPT-2.
    """

    def __init__(
        self,
        vocab_size: PositiveInt,
        width: PositiveInt,
        layers: PositiveInt,
        heads: PositiveInt,
        mlp: PositiveInt,
        max_positions: PositiveInt,
        dropout: Probability,
    ) -> None:
        super().__init__()
        self.spec = self.describe(vocab_size, width, layers, heads, mlp, max_positions, dropout)
        self.tok_emb = nn.Embedding(vocab_size, width)
        self.pos_emb = nn.Embedding(max_positions, width)
        self.blocks = nn.ModuleList(Block(index, width, heads, mlp, dropout) for index in range(layers))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocab_size, bias=False)
        self.lm_head.weight = self.tok_emb.weight
        self.apply(_initialise)
        for block in self.blocks:
            for output in (block.out, block.fc2):  # type: ignore[union-attr]
                nn.init.normal_(output.weight, std=0.02 / (2 * layers) ** 0.5)  # type: ignore[union-attr]

    @staticmethod
    def describe(
        vocab_size: int, width: int, layers: int, heads: int, mlp: int, max_positions: int, dropout: float
    ) -> LanguageSpec:
        if width % heads:
            raise Mismatch("heads", f"{heads} heads do not divide width {width}")
        return LanguageSpec(vocabulary=vocab_size, width=width, positions=max_positions)

    def embed(self, ids: Tensor) -> Tensor:
        return self.tok_emb(ids)

    def forward(
        self,
        embeds: Tensor,
        positions: Tensor,
        mask: Tensor | Spans | None = None,
        cache: Any = None,
        keep: int | Tensor | None = None,
    ) -> Tensor:
        hidden = embeds + self.pos_emb(positions)
        for block in self.blocks[:-1]:
            hidden = block(hidden, mask, cache)
        return self.ln_f(self.blocks[-1](hidden, mask, cache, keep))

    def logits(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden)

    def logp(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return token_logp(hidden, targets, self.logits)


class Block(nn.Module):
    """Pre-norm attention and MLP; attention projections have no bias, the MLP has."""

    def __init__(self, index: int, width: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.index, self.heads = index, heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.fc1, self.fc2 = nn.Linear(width, mlp), nn.Linear(mlp, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, hidden: Tensor, mask: Tensor | Spans | None, cache: Any, keep: int | Tensor | None = None
    ) -> Tensor:
        x = self.ln1(hidden)
        width = x.shape[-1]
        k, v = nn.functional.linear(x, self.qkv.weight[width:]).chunk(2, -1)
        hidden, x = kept(hidden, keep), kept(x, keep)
        q = nn.functional.linear(x, self.qkv.weight[:width])
        q, k, v = (rows.unflatten(-1, (self.heads, -1)).transpose(1, 2) for rows in (q, k, v))
        if cache is not None:
            k, v = cache.update(k, v, self.index)
        seen = attend(q, k, v, mask, dot_product, keep).flatten(2)
        hidden = hidden + self.dropout(self.out(seen))
        return hidden + self.dropout(self.fc2(nn.functional.gelu(self.fc1(self.ln2(hidden)))))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
