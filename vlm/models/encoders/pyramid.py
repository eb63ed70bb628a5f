"""A transformer over squares of a picture: a convolutional stem, an adaptive number of tokens, blocks, pooling."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from annotated_types import Len
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.contracts.errors import Mismatch
from vlm.contracts.ranges import Fraction, PositiveFloat, PositiveInt, Probability
from vlm.contracts.vision import EncoderOutput, ViewSpec, VisionSpec
from vlm.models.encoders.quadtree import LEVELS, BudgetCount, Leaves, tokenize

GROUPS = 8  # of the stem's GroupNorm
OCTAVES = 6  # of the waves of a position
INIT_STD = 0.02
LEAST = 0.001  # saliency lies above it, so that logarithms and shares are sound
EVEN = 0.5  # saliency of `uniform`


class Pyramid(nn.Module):
    """views [N, C, H, W] -> as many tokens as the budget says, finer where the saliency is high.

    tokens [N, T, D], level_ids (0 global, 1 region, 2 detail), spatial_metadata (x and y of the centre, width, height,
    as parts of the picture), saliency_scores, pooled [N, D]. Pictures of any size whose sides are multiples of twice
    the stem's stride are taken, with the same weights; `views` says the usual one.
    token_budget: tokens of a call that names none.   strides: of the stem's stages, width/4, width/2 and from then on
    width channels.   saliency: `learned`, or without weights `variance` of the grey values in a cell, or `uniform`.
    saliency_target: mean saliency that the aux term asks for.   kappa: power of the saliency that the budget goes by.
    drop_path: probability of leaving out a branch of the last block, falling to 0 in the first.
    aux: "saliency", the squared distance of a picture's mean saliency from the target, averaged over views.
    Source: ours, by the public figures of the Keural project; positions as in Mildenhall et al. 2020.
    """

    reports = ("saliency",)
    spare = ("pool", "saliency")  # modules that tokens can be had without: not every objective gives them a gradient

    def __init__(
        self,
        views: ViewSpec,
        token_budget: PositiveInt,
        width: PositiveInt,
        layers: PositiveInt,
        heads: PositiveInt,
        strides: Annotated[list[PositiveInt], Len(3)],
        saliency: Literal["learned", "variance", "uniform"],
        saliency_target: Fraction,
        kappa: PositiveFloat,
        drop_path: Probability,
    ) -> None:
        super().__init__()
        self.spec = self.describe(
            views, token_budget, width, layers, heads, strides, saliency, saliency_target, kappa, drop_path
        )
        self.kind, self.target, self.kappa = saliency, saliency_target, kappa
        channels = [views.channels, width // 4, width // 2, *[width] * (len(strides) - 2)]
        self.stem = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False),
                nn.GroupNorm(GROUPS, after),
                nn.GELU(),
            )
            for before, after, stride in zip(channels, channels[1:], strides, strict=False)
        )
        if saliency == "learned":
            self.saliency = nn.Sequential(nn.Conv2d(width, width // 4, 1), nn.GELU(), nn.Conv2d(width // 4, 1, 1))
        self.level_proj = nn.Linear(width, LEVELS * width)  # the levels one below the other
        self.level_emb = nn.Parameter(torch.empty(LEVELS, width))
        self.pos = nn.Sequential(nn.Linear(4 * OCTAVES + 2, width), nn.GELU(), nn.Linear(width, width))
        dropped = [drop_path * layer / max(1, layers - 1) for layer in range(layers)]
        self.blocks = nn.ModuleList(Block(width, heads, rate) for rate in dropped)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pool = Pool(width, heads)
        self._initialise()

    @staticmethod
    def describe(
        views: ViewSpec,
        token_budget: int,
        width: int,
        layers: int,
        heads: int,
        strides: list[int],
        saliency: str,
        saliency_target: float,
        kappa: float,
        drop_path: float,
    ) -> VisionSpec:
        if width % (4 * GROUPS):
            step = math.lcm(4 * GROUPS, heads)  # so that the heads divide what is named, too
            near = max(1, width // step) * step
            raise Mismatch("width", f"{width} is no multiple of {4 * GROUPS}; choose {near} or {near + step}")
        if width % heads:
            raise Mismatch("heads", f"{heads} heads do not divide width {width}")
        count = BudgetCount(token_budget, math.prod(strides))
        count(views.height, views.width, None)
        return VisionSpec(width=width, count=count, levels=LEVELS)

    def forward(self, views: Tensor, token_budget: int | None = None) -> EncoderOutput:
        """Raises: Refused (an InputError) for a budget or a size that is not legal, with the nearest that are."""
        tokens = self.spec.count(views.shape[2], views.shape[3], token_budget)
        maps = views.contiguous(memory_format=torch.channels_last)
        for stage in self.stem:
            maps = stage(maps)
        saliency = self._saliency(views, maps)
        leaves = tokenize(maps.permute(0, 2, 3, 1), saliency, tokens, self.kappa)
        states = self._embedded(leaves)
        for block in self.blocks:
            states = block(states)
        states = self.norm(states)
        every = len(views)
        return EncoderOutput(
            tokens=states,
            level_ids=leaves.level_ids.expand(every, -1),
            spatial_metadata=leaves.metadata.expand(every, -1, -1),
            saliency_scores=leaves.saliency.expand(every, -1),
            pooled=self.pool(states, leaves.mass),
            aux={"saliency": (saliency.mean((1, 2)) - self.target).square().mean()},
        )

    def _saliency(self, views: Tensor, maps: Tensor) -> Tensor:
        """[N, rows, columns] in LEAST..1, of `uniform` [1, rows, columns]; float32 or better."""
        rows, columns = maps.shape[2:]
        exact = torch.promote_types(views.dtype, torch.float32)
        if self.kind == "uniform":
            return torch.full((1, rows, columns), EVEN, dtype=exact, device=views.device)
        if self.kind == "learned":
            found = self.saliency(maps).squeeze(1).to(exact).sigmoid()
        else:
            grey = views.to(exact).mean(1).unflatten(2, (columns, -1)).unflatten(1, (rows, -1))
            variance = grey.var((2, 4), unbiased=False)
            most = variance.amax((1, 2), keepdim=True)
            found = variance / most.clamp_min(torch.finfo(exact).tiny)  # a blank picture has none anywhere
        return LEAST + (1 - LEAST) * found

    def _embedded(self, leaves: Leaves) -> Tensor:
        """[N, T, D]: the features by the projection of their level, and where they lie."""
        width = self.spec.width
        where = _waves(leaves.metadata).to(self.level_emb.dtype)
        where = self.pos(where) + F.embedding(leaves.level_ids, self.level_emb)
        if leaves.whole:  # all of the last level; slicing keeps a gradient, of zero, for the other levels' rows
            last = slice((LEVELS - 1) * width, None)
            return F.linear(leaves.features, self.level_proj.weight[last], self.level_proj.bias[last]) + where
        first, second, third = self.level_proj(leaves.features).chunk(LEVELS, dim=-1)
        level = leaves.level_ids.unsqueeze(-1)
        return torch.where(level == 0, first, torch.where(level == 1, second, third)) + where

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.level_emb, std=INIT_STD)
        nn.init.normal_(self.pool.query, std=INIT_STD)
        for through in (self.pool.v, self.pool.out):
            # The pooled vector begins as the mean of the tokens: with small weights its biases outgrow what the picture
            # says, and contrastive pretraining ends with one vector for all pictures.
            nn.init.eye_(through.weight)
        for block in self.blocks:  # what is added to the residual stream; 2 branches a block
            for last in (block.out, block.shrink):  # type: ignore[union-attr]
                nn.init.trunc_normal_(last.weight, std=INIT_STD / math.sqrt(2 * len(self.blocks)))  # type: ignore[arg-type]
        if self.kind == "learned":
            nn.init.normal_(self.saliency[-1].weight, std=INIT_STD)  # type: ignore[arg-type]  # near 0.5 everywhere


class Block(nn.Module):
    """Pre-norm attention over all tokens and a GELU layer four times as wide, [N, T, D] -> [N, T, D]."""

    def __init__(self, width: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.heads, self.drop_path = heads, drop_path
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.grow = nn.Linear(width, 4 * width)
        self.shrink = nn.Linear(4 * width, width)

    def forward(self, states: Tensor) -> Tensor:
        states = states + self._kept(self._attended(self.norm1(states)))
        return states + self._kept(self.shrink(F.gelu(self.grow(self.norm2(states)))))

    def _attended(self, states: Tensor) -> Tensor:
        q, k, v = self.qkv(states).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def _kept(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1 - self.drop_path
        return branch * branch.new_empty(len(branch), 1, 1).bernoulli_(keep).div_(keep)


class Pool(nn.Module):
    """tokens [N, T, D], mass [N or 1, T] -> [N, D]: attention of one learned query, more to tokens of more mass.

    The logarithm of the mass is added to the scores: a blank square weighs less, and that a big square is one token
    where four small ones are four cancels out.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.empty(width))
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, tokens: Tensor, mass: Tensor) -> Tensor:
        # There is one query for all: the key weights are folded into it, the value weights meet the mean of the tokens
        # that it sees, and no key or value of a token is ever made.
        q = self.q(self.query).unflatten(0, (self.heads, -1)) / math.sqrt(len(self.query) // self.heads)
        weight, bias = (held.unflatten(0, (self.heads, -1)) for held in (self.k.weight, self.k.bias))
        scores = F.linear(tokens, torch.einsum("hc,hcd->hd", q, weight), (q * bias).sum(-1))
        exact = torch.promote_types(scores.dtype, mass.dtype)
        shares = (scores.to(exact) + mass.log().unsqueeze(-1)).softmax(dim=1).to(tokens.dtype)  # [N, T, heads]
        seen = shares.transpose(1, 2) @ tokens
        values = torch.einsum("nhd,hcd->nhc", seen, self.v.weight.unflatten(0, (self.heads, -1)))
        return self.out(values.flatten(1) + self.v.bias)


def _waves(metadata: Tensor) -> Tensor:
    """[..., 4] -> [..., 26]: sines of x and of y, cosines of both, logarithms of width and height."""
    frequencies = math.pi * 2.0 ** torch.arange(OCTAVES, device=metadata.device, dtype=metadata.dtype)
    angles = (metadata[..., :2].unsqueeze(-1) * frequencies).flatten(-2)
    return torch.cat([angles.sin(), angles.cos(), (32 * metadata[..., 2:]).log2() / 5], dim=-1)
