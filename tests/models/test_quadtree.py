"""A budget of N tokens is a cut of the picture into exactly N squares."""

from __future__ import annotations

import heapq
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm.contracts.errors import InputError, Mismatch
from vlm.models.encoders.quadtree import BudgetCount, Grid, Refused, grid_of, sums, tokenize, z_order

WHOLE = Grid(32, 32)
GRIDS = (WHOLE, Grid(8, 8), Grid(48, 48), Grid(12, 20), Grid(2, 6), Grid(64, 32))


def maps() -> dict[str, torch.Tensor]:
    """Three saliency maps [1, 32, 32]: a bright corner, an even one, waves."""
    y, x = torch.meshgrid(torch.arange(32).double(), torch.arange(32).double(), indexing="ij")
    corner = torch.full((32, 32), 0.01, dtype=torch.double).masked_fill((x < 8) & (y < 8), 0.99)
    waves = 0.001 + 0.998 * ((0.9 * x).sin() * (0.7 * y).cos() + 1) / 2
    return {"corner": corner[None], "even": torch.full((1, 32, 32), 0.5).double(), "waves": waves[None]}


def cut(saliency, tokens, kappa=2.0, features=None):
    features = torch.zeros(*saliency.shape, 1, dtype=saliency.dtype) if features is None else features
    return tokenize(features, saliency, tokens, kappa)


def boxes(leaves, grid=WHOLE, row=0) -> list[tuple[int, int, int]]:
    """x, y and side of each square, in cells."""
    metadata = leaves.metadata[row] * torch.tensor([grid.columns, grid.rows, grid.columns, grid.rows]).double()
    return [(round(x - w / 2), round(y - h / 2), round(w)) for x, y, w, h in metadata.tolist()]


def level_counts(leaves) -> tuple[int, ...]:
    return tuple(int((leaves.level_ids[0] == level).sum()) for level in range(3))


def random_saliency(grid, rows=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.001 + 0.999 * torch.rand(rows, grid.rows, grid.columns, generator=generator, dtype=torch.double) ** 3


@pytest.mark.parametrize(
    ("name", "tokens", "levels"),
    [
        ("corner", 64, (6, 2, 56)),
        ("corner", 256, (0, 192, 64)),
        ("even", 64, (0, 64, 0)),
        ("even", 256, (0, 256, 0)),
        ("even", 1024, (0, 0, 1024)),
        ("waves", 64, (0, 64, 0)),
        ("waves", 256, (0, 208, 48)),
        ("waves", 1024, (0, 0, 1024)),
    ],
)
def test_the_maps_of_the_specification_are_cut_as_it_says(name, tokens, levels):
    assert level_counts(cut(maps()[name], tokens)) == levels


@pytest.mark.parametrize(
    ("tokens", "kappa", "places", "ranks"),
    [(64, 2, 152.0, 2016), (256, 2, 491.875, 38472), (1024, 2, 1760.0, 1047552), (256, 1, 496.0, None)],
)
def test_order_and_places_are_those_of_the_specification(tokens, kappa, places, ranks):
    leaves = cut(maps()["waves"], tokens, kappa)
    assert (leaves.metadata[0] * torch.tensor([1, 2, 3, 4])).sum().item() == places
    if ranks is not None:
        assert (leaves.level_ids[0] * torch.arange(tokens)).sum().item() == ranks


def test_a_bright_corner_gets_the_tokens():
    few, many = (cut(maps()["corner"], tokens) for tokens in (64, 256))
    assert int((few.metadata[0, :, :2] < 0.25).all(-1).sum()) == 58
    assert {(x, y, 1) for x in range(8) for y in range(8)} <= set(boxes(many))


def test_waves_are_cut_into_squares_of_three_sizes():
    sides = [side for _, _, side in boxes(cut(maps()["waves"], 256))]
    assert {side: sides.count(side) for side in set(sides)} == {1: 48, 2: 196, 4: 12}


@pytest.mark.parametrize(("name", "total"), [("corner", 72.96), ("even", 512.0)])
@pytest.mark.parametrize("tokens", [1, 64, 1024])
def test_no_mass_is_lost(name, total, tokens):
    leaves = cut(maps()[name], tokens)
    assert leaves.mass.sum().item() == pytest.approx(total, abs=1e-9)
    areas = leaves.metadata[..., 2] * 32 * leaves.metadata[..., 3] * 32
    torch.testing.assert_close(leaves.saliency * areas, leaves.mass)


def test_all_cells_come_in_z_order_whatever_the_saliency():
    features = torch.arange(1024).double().view(1, 32, 32, 1)
    leaves = cut(maps()["waves"], 1024, features=features)
    expected = [
        sum(((rank >> 2 * bit & 1) << bit) + ((rank >> 2 * bit + 1 & 1) << bit) * 32 for bit in range(5))
        for rank in range(1024)
    ]
    assert leaves.features[0, :, 0].tolist() == expected
    assert [y * 32 + x for x, y, _ in boxes(leaves)] == expected


def greedy(saliency: torch.Tensor, grid: Grid, tokens: int, kappa: float) -> set[int]:
    """Numbers of the leaves if the heaviest leaf is split again and again; of equal ones the lower number."""
    mass = sums(z_order(saliency, grid) ** kappa, grid)[0].tolist()
    heap = [(-mass[node], node) for node in range(grid.roots)]
    leaves = set(range(grid.roots))
    heapq.heapify(heap)
    while len(leaves) < tokens:
        _, node = heapq.heappop(heap)
        children = [grid.roots + 4 * node + child for child in range(4)]
        leaves = leaves - {node} | set(children)
        for child in children:
            if child < grid.inner:
                heapq.heappush(heap, (-mass[child], child))
    return leaves


def numbers(leaves, grid: Grid, row: int = 0) -> list[int]:
    """The number of each square, in order, from its place and size alone."""
    first = z_order(torch.arange(grid.cells).view(1, grid.rows, grid.columns), grid)[0].argsort().tolist()
    found = []
    for x, y, side in boxes(leaves, grid, row):
        level = grid.depth - side.bit_length() + 1
        above = grid.roots * (4**level - 1) // 3
        found.append(above + first[y * grid.columns + x] // side**2)
    return found


@pytest.mark.parametrize("name", ["corner", "even", "waves"])
@pytest.mark.parametrize("tokens", [64, 256, 1024])
@pytest.mark.parametrize("kappa", [1.0, 2.0])
def test_the_cut_is_that_of_splitting_the_heaviest_leaf(name, tokens, kappa):
    found = numbers(cut(maps()[name], tokens, kappa), WHOLE)
    assert len(found) == tokens
    assert set(found) == greedy(maps()[name], WHOLE, tokens, kappa)


@given(st.sampled_from(GRIDS), st.integers(0, 10**6), st.floats(0.5, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_so_it_is_on_any_grid_with_any_budget_and_with_ties(grid, seed, kappa, ties):
    tokens = grid.roots + 3 * (seed % (grid.inner + 1))
    saliency = random_saliency(grid, seed=seed)
    saliency = saliency.mul(4).ceil().div(4) if ties else saliency
    leaves = cut(saliency, tokens, kappa)
    assert set(numbers(leaves, grid)) == greedy(saliency, grid, tokens, kappa)
    painted = torch.zeros(grid.rows, grid.columns)
    for x, y, side in boxes(leaves, grid):
        painted[y : y + side, x : x + side] += 1
    assert bool((painted == 1).all()), "every cell lies in exactly one square"
    assert (leaves.metadata[..., 2] * leaves.metadata[..., 3]).sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", ["corner", "even", "waves"])
def test_a_larger_budget_refines_a_smaller_one_in_place(name):
    few, many = (boxes(cut(maps()[name], tokens)) for tokens in (64, 256))
    owner = {}
    for rank, (x, y, side) in enumerate(few):
        owner |= {(x + dx, y + dy): rank for dx in range(side) for dy in range(side)}
    owners = [{owner[x + dx, y + dy] for dx in range(side) for dy in range(side)} for x, y, side in many]
    assert all(len(found) == 1 for found in owners)
    assert [min(found) for found in owners] == sorted(min(found) for found in owners)


def test_a_picture_is_cut_alike_alone_and_in_a_batch():
    saliency = random_saliency(WHOLE, rows=5).float()
    together = cut(saliency, 100)
    for row in range(5):
        alone = cut(saliency[row : row + 1], 100)
        assert torch.equal(alone.metadata[0], together.metadata[row])
        assert torch.equal(alone.mass[0], together.mass[row])


@pytest.mark.parametrize(("top", "left"), [(0, 0), (0, 16), (16, 0), (16, 16)])
@pytest.mark.parametrize("tokens", [64, 100, 256])
def test_more_saliency_in_a_quadrant_never_takes_tokens_from_it(top, left, tokens):
    saliency = maps()["waves"] * 0.7
    brighter = saliency.clone()
    brighter[:, top : top + 16, left : left + 16] += 0.3

    def inside(leaves):
        centre = leaves.metadata[0] * 32
        across, down = centre[:, 0] - left, centre[:, 1] - top
        return int(((across > 0) & (across < 16) & (down > 0) & (down < 16)).sum())

    assert inside(cut(brighter, tokens)) >= inside(cut(saliency, tokens))


def test_a_picture_turned_upside_down_is_cut_upside_down():
    saliency = random_saliency(WHOLE)
    for tokens in (64, 256):
        turned = {(32 - x - side, 32 - y - side, side) for x, y, side in boxes(cut(saliency.flip(1, 2), tokens))}
        assert turned == set(boxes(cut(saliency, tokens)))


def test_features_are_means_weighted_by_saliency():
    saliency, generator = random_saliency(WHOLE, rows=2), torch.Generator().manual_seed(1)
    features = torch.randn(2, 32, 32, 3, generator=generator, dtype=torch.double)
    leaves = cut(saliency, 64, features=features)
    for row in range(2):
        for rank, (x, y, side) in enumerate(boxes(leaves, row=row)):
            weight = saliency[row, y : y + side, x : x + side].unsqueeze(-1)
            mean = (weight * features[row, y : y + side, x : x + side]).sum((0, 1)) / weight.sum()
            torch.testing.assert_close(leaves.features[row, rank], mean)
            torch.testing.assert_close(leaves.mass[row, rank], weight.sum())


def test_saliency_that_all_pictures_share_is_cut_once():
    features = torch.randn(3, 32, 32, 2, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    shared = cut(maps()["waves"], 100, features=features)
    own = cut(maps()["waves"].expand(3, -1, -1), 100, features=features)
    assert shared.metadata.shape[0] == 1
    torch.testing.assert_close(shared.features, own.features)
    assert torch.equal(shared.metadata.expand(3, -1, -1), own.metadata)


def test_shares_are_weighed_in_float32_whatever_surrounds_them():
    saliency = 0.5 + 1e-4 * random_saliency(WHOLE).float()  # one number in bfloat16
    expected = cut(saliency, 256)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cut(saliency, 256).metadata, expected.metadata)
    coarse = saliency.bfloat16()
    leaves = tokenize(torch.zeros(1, 32, 32, 1, dtype=torch.bfloat16), coarse, 256, 2.0)
    assert leaves.mass.dtype == leaves.metadata.dtype == torch.float32
    assert leaves.features.dtype == torch.bfloat16
    assert torch.equal(leaves.metadata, cut(coarse.float(), 256).metadata)


def test_nothing_waits_for_the_device():
    """On the meta device there are no values, so whatever asked for one would fail."""
    leaves = tokenize(torch.zeros(2, 32, 32, 4, device="meta"), torch.ones(2, 32, 32, device="meta"), 64, 2.0)
    assert leaves.features.shape == (2, 64, 4)
    assert leaves.metadata.shape == (2, 64, 4)


@given(st.integers(-5, 1100))
@settings(max_examples=60, deadline=None)
def test_one_and_three_times_any_number_of_splits_is_a_budget_and_nothing_else(tokens):
    if 1 <= tokens <= 1024 and tokens % 3 == 1:
        assert WHOLE.splits(tokens) == (tokens - 1) // 3
        return
    legal = sorted(range(1, 1025, 3), key=lambda budget: abs(budget - tokens))[:2]
    with pytest.raises(Refused, match=f"token_budget={min(legal)} or {max(legal)} "):
        WHOLE.splits(tokens)


def test_an_illegal_budget_is_a_mistake_in_a_configuration_and_of_a_caller():
    count = BudgetCount(default=256, stride=8)
    assert [count(256, 256, budget) for budget in (None, 64, 100, 1024)] == [256, 64, 100, 1024]
    message = (
        r"32 x 32 cells cannot be cut into 65 squares; choose token_budget=64 or 67 \(legal are 1 \+ 3 K up to 1024"
    )
    for kind in (Mismatch, InputError):
        with pytest.raises(kind, match=message):
            count(256, 256, 65)


@pytest.mark.parametrize(
    ("height", "width", "roots", "side"),
    [(256, 256, 1, 32), (384, 384, 9, 16), (512, 512, 4, 32), (64, 64, 1, 8), (96, 160, 15, 4), (16, 16, 1, 2)],
)
def test_other_sizes_begin_with_the_largest_squares_that_fit(height, width, roots, side):
    grid = grid_of(height, width, 8)
    assert (grid.roots, grid.side) == (roots, side)
    count = BudgetCount(roots, 8)
    assert count(height, width, roots + 3) == roots + 3
    assert count(height, width, height * width // 64) == grid.cells
    with pytest.raises(Refused, match=rf"legal are {roots} \+ 3 K up to {grid.cells}"):
        count(height, width, roots + 1)


@pytest.mark.parametrize(
    ("size", "choose"), [((250, 256), "240 or 256"), ((256, 264), "256 or 272"), ((8, 8), "16 or 32")]
)
def test_a_size_that_leaves_no_even_grid_is_refused_with_the_nearest(size, choose):
    with pytest.raises(Refused, match=f"multiples of 16 .*choose encoder.views.size={choose}"):
        BudgetCount(256, 8)(size[0], size[1], None)


def test_the_count_goes_to_workers():
    count = pickle.loads(pickle.dumps(BudgetCount(256, 8)))
    assert count == BudgetCount(256, 8)
    assert math.isqrt(count(256, 256, None)) == 16
