"""The adaptive token budget: a picture cut into exactly N squares, small where much is to be seen.

A grid of cells is covered by equal squares of the largest power of two that divides both its sides, and each of them is
the root of a quadtree over its cells. A split puts four nodes in the place of one, so the legal budgets are
roots + 3 K. Nodes are numbered coarse to fine, the nodes of a level in Z-order (roots in reading order): node j is split
into the nodes roots + 4 j … roots + 4 j + 3.
Source: ours; of Keural's tokenizer the budgets and the record that it gives are public, the algorithm is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from vlm.contracts.errors import InputError, Mismatch

LARGEST = 32  # cells a side of the largest root
LEVELS = 3  # level ids: 0 global, 1 region, 2 detail
REGION, GLOBAL = 2, 8  # cells a side from which a square is called so


class Refused(Mismatch, InputError):
    """A budget or a picture size that the grid cannot have, said by a configuration or by a caller at run time."""


@dataclass(frozen=True)
class Grid:
    """The cells of a picture.   side: cells a side of a root.   inner: number of nodes that can be split."""

    rows: int
    columns: int

    @property
    def side(self) -> int:
        common = math.gcd(self.rows, self.columns)
        return min(LARGEST, common & -common)

    @property
    def depth(self) -> int:
        return self.side.bit_length() - 1

    @property
    def cells(self) -> int:
        return self.rows * self.columns

    @property
    def roots(self) -> int:
        return self.cells // self.side**2

    @property
    def inner(self) -> int:
        return (self.cells - self.roots) // 3

    def splits(self, tokens: int) -> int:
        """How many nodes a budget splits. Raises: Refused, with the nearest legal budgets."""
        if self.roots <= tokens <= self.cells and (tokens - self.roots) % 3 == 0:
            return (tokens - self.roots) // 3
        below = min(max(tokens, self.roots), self.cells - 3)
        below -= (below - self.roots) % 3
        raise Refused(
            "token_budget",
            f"{self.rows} x {self.columns} cells cannot be cut into {tokens} squares; choose token_budget={below} or "
            f"{below + 3} (legal are {self.roots} + 3 K up to {self.cells})",
        )


def grid_of(height: int, width: int, stride: int) -> Grid:
    """The grid of a picture of height x width pixels. Raises: Refused if a side is no multiple of 2 * stride."""
    step = 2 * stride
    for side in (height, width):
        if side <= 0 or side % step:
            below = max(step, side // step * step)
            raise Refused(
                "views",
                f"pictures of {height} x {width} pixels, but both sides must be multiples of {step} (twice the product "
                f"of the stem's strides); choose encoder.views.size={below} or {below + step}",
            )
    return Grid(height // stride, width // stride)


@dataclass(frozen=True)
class BudgetCount:
    """As many tokens as the budget says, `default` without one.   stride: pixels a side of a cell."""

    default: int
    stride: int

    def __call__(self, height: int, width: int, token_budget: int | None) -> int:
        """Raises: Refused, with the nearest legal budgets or picture sizes."""
        tokens = self.default if token_budget is None else token_budget
        grid_of(height, width, self.stride).splits(tokens)
        return tokens


@dataclass(frozen=True)
class Leaves:
    """The squares of each picture in Z-order; b is B, or 1 where all pictures are cut and weighed alike.

    features [B, N, C], the saliency-weighted mean of a square's cells.   saliency [b, N], its mean saliency.
    mass [b, N], its sum.   metadata [b, N, 4]: x and y of the centre, width and height, as parts of the picture.
    level_ids [b, N].   whole: every square is a cell.
    """

    features: Tensor
    saliency: Tensor
    mass: Tensor
    metadata: Tensor
    level_ids: Tensor
    whole: bool


def tokenize(maps: Tensor, saliency: Tensor, tokens: int, kappa: float) -> Leaves:
    """maps [B, rows, columns, C] and saliency [B or 1, rows, columns] > 0 -> `tokens` squares of each picture.

    kappa: the power of the saliency that the splits go by. Nothing but the sums is differentiated: where the splits
    lie has no gradient. All of it is worked out in float32 or better, and nothing waits for the device.
    Raises: Refused for an illegal budget.
    """
    grid = Grid(maps.shape[1], maps.shape[2])
    splits = grid.splits(tokens)
    cells = z_order(maps, grid)
    weight = z_order(saliency.to(torch.promote_types(saliency.dtype, torch.float32)), grid)
    masses = sums(weight, grid)
    sides, metadata, level_ids = squares(grid, weight.device, weight.dtype)
    whole = tokens == grid.cells
    if whole:  # whatever the saliency; a cell is its own mean
        index = torch.arange(grid.inner, grid.inner + grid.cells, device=maps.device).unsqueeze(0)
        features, mass = cells, weight
    else:
        index = allocate(sums(weight.detach() ** kappa, grid), grid, splits)
        features, mass = _at(means(cells, masses, grid), index).to(maps.dtype), _at(masses, index)
    return Leaves(features, mass / sides[index] ** 2, mass, metadata[index], level_ids[index], whole)


def z_order(maps: Tensor, grid: Grid) -> Tensor:
    """[B, rows, columns, ...] -> [B, cells, ...]: inside a root bit b of x is bit 2 b, bit b of y is bit 2 b + 1."""
    bits = (2,) * grid.depth
    split = maps.unflatten(2, (-1, *bits)).unflatten(1, (-1, *bits))
    across = grid.depth + 2  # where the columns of roots stand now, the bits of x after them
    inside = chain.from_iterable((place, across + place - 1) for place in range(2, across))
    rest = range(2 * across - 1, split.ndim)
    return split.permute(0, 1, across, *inside, *rest).flatten(1, 2 * across - 2)


def sums(cells: Tensor, grid: Grid) -> Tensor:
    """cells [B, cells] -> the sum of each node's cells, [B, nodes].

    The order of summation is written out, so that devices agree; of positive numbers no part exceeds its sum.
    """
    levels = [cells]
    for _ in range(grid.depth):
        first, second, third, fourth = levels[-1].unflatten(1, (-1, 4)).unbind(-1)
        levels.append((first + second) + (third + fourth))
    return torch.cat(levels[::-1], dim=1)


def means(cells: Tensor, masses: Tensor, grid: Grid) -> Tensor:
    """cells [B, cells, C], masses [b, nodes] -> the mean of each node's cells weighted by their mass, [B, nodes, C].

    It is taken from mean to mean with each child's share of its parent, so a cell's own mean is exact and without
    gradient to its mass.
    """
    shares = masses[:, grid.roots :] / masses[:, : grid.inner].repeat_interleave(4, dim=1)
    levels = [cells]
    for share in shares.split([grid.roots * 4**level for level in range(1, grid.depth + 1)], dim=1)[::-1]:
        levels.append((share.unsqueeze(-1) * levels[-1]).unflatten(1, (-1, 4)).sum(2))
    return torch.cat(levels[::-1], dim=1)


def allocate(masses: Tensor, grid: Grid, splits: int) -> Tensor:
    """masses [b, nodes], none above its parent's -> the numbers of the leaves after `splits` splits, [b, N], in Z-order.

    The heaviest nodes are split; of equal ones the coarser first, then in Z-order. As no node is heavier than its
    parent, that is what splitting the heaviest leaf again and again comes to.
    """
    heaviest = masses[:, : grid.inner].argsort(dim=1, descending=True, stable=True)[:, :splits]
    split = torch.zeros_like(masses[:, : grid.inner], dtype=torch.bool).scatter(1, heaviest, value=True)
    there = torch.cat([split.new_ones(len(split), grid.roots), split.repeat_interleave(4, dim=1)], dim=1)
    leaf = there & ~torch.cat([split, split.new_zeros(len(split), grid.cells)], dim=1)
    order = torch.where(leaf, _first_cells(grid, masses.device), grid.cells).argsort(dim=1, stable=True)
    return order[:, : grid.roots + 3 * splits]


def squares(grid: Grid, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Of all nodes: cells a side [nodes], metadata [nodes, 4] as in `Leaves`, level ids [nodes]."""
    levels = range(grid.depth + 1)
    sides = torch.cat(
        [torch.full((grid.roots * 4**level,), grid.side >> level, device=device, dtype=dtype) for level in levels]
    )
    first = _first_cells(grid, device)
    across = torch.arange(grid.columns, device=device).expand(1, grid.rows, -1)
    down = torch.arange(grid.rows, device=device).view(1, -1, 1).expand(-1, -1, grid.columns)
    x = z_order(across, grid)[0, first] + sides / 2
    y = z_order(down, grid)[0, first] + sides / 2
    metadata = torch.stack([x / grid.columns, y / grid.rows, sides / grid.columns, sides / grid.rows], dim=1)
    level_ids = (LEVELS - 1) - (sides >= REGION).long() - (sides >= GLOBAL).long()
    return sides, metadata, level_ids


def _first_cells(grid: Grid, device: torch.device) -> Tensor:
    """The number in Z-order of each node's first cell, [nodes]."""
    steps = [4 ** (grid.depth - level) for level in range(grid.depth + 1)]
    return torch.cat([torch.arange(0, grid.cells, step, device=device) for step in steps])


def _at(nodes: Tensor, index: Tensor) -> Tensor:
    """nodes [B, nodes, ...] -> those at index [B or 1, N], [B, N, ...]."""
    if len(index) == 1:
        return nodes.index_select(1, index[0])
    places = index.view(*index.shape, *[1] * (nodes.ndim - 2)).expand(-1, -1, *nodes.shape[2:])
    return nodes.gather(1, places)
