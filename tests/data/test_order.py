from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm.data.loader import GlobalBatches, OncePerRow
from vlm.data.order import Mix, Permutation


@settings(max_examples=50, deadline=None, derandomize=True)
@given(n=st.integers(1, 3000), key=st.integers(0, 2**63))
def test_a_permutation_reaches_every_row_once(n, key):
    assert sorted(map(Permutation(n, key), range(n))) == list(range(n))


def test_the_order_depends_on_seed_and_epoch_and_nothing_else():
    def rows(seed: int, begin: int) -> list[int]:
        mix = Mix([50], [1.0], seed, shuffle=True)
        return [mix.place(position).row for position in range(begin, begin + 50)]

    assert rows(0, 0) == rows(0, 0)
    assert rows(0, 0) != rows(1, 0)
    assert rows(0, 0) != rows(0, 50)
    assert sorted(rows(0, 0)) == sorted(rows(0, 50)) == list(range(50))


def test_without_shuffling_rows_come_in_file_order():
    mix = Mix([3, 2], [1.0, 1.0], seed=5, shuffle=False)
    places = [mix.place(position) for position in range(10)]
    assert [(place.source, place.row) for place in places[:5]] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert [place.visit for place in places] == [0] * 5 + [1] * 5


@settings(max_examples=30, deadline=None, derandomize=True)
@given(weights=st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0]), min_size=2, max_size=3), shuffle=st.booleans())
def test_weights_are_kept_exactly_and_every_row_has_its_turn(weights, shuffle):
    rows = [40] * len(weights)
    mix = Mix(rows, weights, seed=1, shuffle=shuffle)
    epochs = 4
    seen = Counter((place.source, place.row) for place in map(mix.place, range(epochs * mix.length)))
    for source, weight in enumerate(weights):
        counts = [seen[source, row] for row in range(40)]
        assert sum(counts) == epochs * 40 * weight
        assert max(counts) - min(counts) <= 1


def taken(batches: GlobalBatches, count: int) -> list[list[int]]:
    iterator = iter(batches)
    return [next(iterator) for _ in range(count)]


@pytest.mark.parametrize(("micro", "world"), [(8, 1), (4, 1), (4, 2), (1, 8), (2, 2)])
def test_a_step_covers_the_same_positions_on_any_hardware(micro, world):
    share = 8 // (micro * world)
    for step in range(3):
        covered = []
        for rank in range(world):
            batches = GlobalBatches(8, micro, rank, world)
            covered += [p for batch in taken(batches, 3 * share)[step * share : (step + 1) * share] for p in batch]
        assert sorted(covered) == list(range(8 * step, 8 * step + 8))


def test_starting_at_a_step_goes_on_as_if_never_stopped():
    assert taken(GlobalBatches(8, 4, 0, 1, start=2), 4) == taken(GlobalBatches(8, 4, 0, 1), 8)[4:]


def test_validation_sees_each_row_once():
    batches = [batch for rank in range(2) for batch in OncePerRow(23, 5, rank, 2)]
    assert sorted(position for batch in batches for position in batch) == list(range(23))
