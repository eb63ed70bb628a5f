"""A GPT-2-style decoder with learned positions and tied embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vlm.contracts.errors import Mismatch
from vlm.contracts.language import LanguageSpec
from vlm.contracts.ranges import PositiveInt, Probability
from vlm.models.llms.head import token_logp


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
        mask: Tensor | None = None,
        cache: Any = None,
        keep: int | None = None,
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

    def forward(self, hidden: Tensor, mask: Tensor | None, cache: Any, keep: int | None = None) -> Tensor:
        x = self.ln1(hidden)
        width = x.shape[-1]
        k, v = nn.functional.linear(x, self.qkv.weight[width:]).chunk(2, -1)
        if keep is not None:
            hidden, x = hidden[:, -keep:], x[:, -keep:]
            mask = None if mask is None else mask[:, :, -keep:]
        q = nn.functional.linear(x, self.qkv.weight[:width])
        q, k, v = (rows.unflatten(-1, (self.heads, -1)).transpose(1, 2) for rows in (q, k, v))
        if cache is not None:
            k, v = cache.update(k, v, self.index)
        queries, keys = q.shape[2], k.shape[2]
        if mask is None and 1 < queries < keys:  # the last rows of a longer sequence: causal from its end on
            mask = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
        plain = mask is None and queries > 1
        seen = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=plain)
        hidden = hidden + self.dropout(self.out(seen.transpose(1, 2).flatten(2)))
        return hidden + self.dropout(self.fc2(nn.functional.gelu(self.fc1(self.ln2(hidden)))))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
