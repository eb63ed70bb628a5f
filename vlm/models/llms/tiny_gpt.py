"""A decoder without biases or learned norms, with ordinary or tensor-product attention."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from vlm.contracts.errors import Mismatch
from vlm.contracts.language import LanguageSpec
from vlm.contracts.ranges import PositiveInt
from vlm.models.attention import attend, kept, lower_right
from vlm.models.llms.head import token_logp
from vlm.models.mask import Spans

INIT_STD = 0.08  # published
PROBABILITY_FLOOR = 1e-10  # the published loss is -log(p + 1e-10)


class TinyGPT(nn.Module):
    """embeds [R, L, W] + positions -> hidden [R, L, W]; RMS norm right after the embedding, none at the end.

    attention: "tensor" scores (q1.k1)(q2.k2)/head_dim over the halves of each head; "dot" is q.k/sqrt(head_dim).
    fidelity: "reference" reproduces the published hand-written backward, in which every RMS norm multiplies the
    gradient by the rms value, and the published loss -log(p + 1e-10); "exact" differentiates what is computed.
    Source: the purevlm project.
    """

    def __init__(
        self,
        vocab_size: PositiveInt,
        width: PositiveInt,
        layers: PositiveInt,
        heads: PositiveInt,
        mlp: PositiveInt,
        max_positions: PositiveInt,
        attention: Literal["tensor", "dot"],
        fidelity: Literal["exact", "reference"],
    ) -> None:
        super().__init__()
        self.spec = self.describe(vocab_size, width, layers, heads, mlp, max_positions, attention, fidelity)
        self.floor = PROBABILITY_FLOOR if fidelity == "reference" else None
        self.norm = reference_rms if fidelity == "reference" else rms
        self.wte = _table(vocab_size, width)
        self.wpe = _table(max_positions, width)
        self.layers = nn.ModuleList(
            TinyBlock(index, width, heads, mlp, attention == "tensor", self.norm) for index in range(layers)
        )
        self.lm_head = _table(vocab_size, width)

    @staticmethod
    def describe(
        vocab_size: int,
        width: int,
        layers: int,
        heads: int,
        mlp: int,
        max_positions: int,
        attention: str,
        fidelity: str,
    ) -> LanguageSpec:
        if width % heads:
            raise Mismatch("heads", f"{heads} heads do not divide width {width}")
        if attention == "tensor" and (width // heads) % 2:
            raise Mismatch("heads", f"tensor attention halves each head, but width {width} / {heads} heads is odd")
        return LanguageSpec(vocabulary=vocab_size, width=width, positions=max_positions)

    def embed(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(ids, self.wte)

    def forward(
        self,
        embeds: Tensor,
        positions: Tensor,
        mask: Tensor | Spans | None = None,
        cache: Any = None,
        keep: int | Tensor | None = None,
    ) -> Tensor:
        hidden = self.norm(embeds + nn.functional.embedding(positions, self.wpe))
        for layer in self.layers[:-1]:
            hidden = layer(hidden, mask, cache)
        return self.layers[-1](hidden, mask, cache, keep)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.lm_head.T

    def logp(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return token_logp(hidden, targets, self.logits, self.floor)


class TinyBlock(nn.Module):
    """Pre-norm attention and ReLU MLP, all without biases."""

    def __init__(self, index: int, width: int, heads: int, mlp: int, tensor_product: bool, norm: Any) -> None:
        super().__init__()
        self.index, self.heads, self.tensor_product, self.norm = index, heads, tensor_product, norm
        self.wq, self.wk = _table(width, width), _table(width, width)
        self.wv, self.wo = _table(width, width), _table(width, width)
        self.mlp_fc1, self.mlp_fc2 = _table(mlp, width), _table(width, mlp)

    def forward(
        self, hidden: Tensor, mask: Tensor | Spans | None, cache: Any, keep: int | Tensor | None = None
    ) -> Tensor:
        x = self.norm(hidden)
        k, v = self._split(x @ self.wk.T), self._split(x @ self.wv.T)
        hidden, x = kept(hidden, keep), kept(x, keep)
        q = self._split(x @ self.wq.T)
        if cache is not None:
            k, v = cache.update(k, v, self.index)
        seen = attend(q, k, v, mask, self._attention, keep).flatten(2)
        hidden = hidden + seen @ self.wo.T
        return hidden + (self.norm(hidden) @ self.mlp_fc1.T).relu() @ self.mlp_fc2.T

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return _scores(q, k, self.tensor_product, mask) @ v

    def _split(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def rms(rows: Tensor) -> Tensor:
    """rows / sqrt(mean of squares + 1e-5), without a learned weight."""
    return rows * (rows.square().mean(-1, keepdim=True) + 1e-5).rsqrt()


class _ReferenceRMS(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # type: ignore[override]
        scale = (rows.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        ctx.save_for_backward(scale)
        return rows / scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (scale,) = ctx.saved_tensors
        return gradient * scale  # differs from the derivative (g - y mean(g y)) / scale: this is what was published


def reference_rms(rows: Tensor) -> Tensor:
    """The values of `rms` with the published backward."""
    return _ReferenceRMS.apply(rows)  # type: ignore[return-value]


def _scores(q: Tensor, k: Tensor, tensor_product: bool, mask: Tensor | None) -> Tensor:
    """q [R, H, L, d], k [R, H, L', d] -> attention weights [R, H, L, L']."""
    width = q.shape[-1]
    if tensor_product:
        half = width // 2
        # scaling one half of q is the same as scaling the scores, on a much smaller tensor
        scores = ((q[..., :half] / width) @ k[..., :half].mT) * (q[..., half:] @ k[..., half:].mT)
    else:
        scores = (q / width**0.5) @ k.mT
    if mask is None:
        mask = lower_right(scores.shape[-2], scores.shape[-1], q.device)
    hidden = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, float("-inf"))
    return (scores + hidden).softmax(-1)


def _table(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) * INIT_STD)
