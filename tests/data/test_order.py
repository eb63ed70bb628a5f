"""The order of rows: every source in its share, at every place the same row, whoever asks."""

from __future__ import annotations

import pickle
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm.data.order import BLOCK, Mix, Permutation, Place, Source, Windows, quotas

seldom = settings(max_examples=50, deadline=None, derandomize=True)
keys = st.integers(0, 2**63)
sources = st.lists(st.builds(Source, st.integers(1, 700), st.integers(1, 900)), min_size=1, max_size=5)


def places(mix: Mix, epoch: int = 0) -> list[Place]:
    return [mix.place(epoch * mix.length + index) for index in range(mix.length)]


@seldom
@given(n=st.integers(1, 3000), key=keys)
def test_a_permutation_reaches_every_row_once(n, key):
    assert sorted(map(Permutation(n, key), range(n))) == list(range(n))


@pytest.mark.parametrize("n", [2, 3, 6, 20, 256, 1000])
def test_keys_spread_a_place_and_the_step_to_its_neighbour_evenly(n):
    drawn = [Permutation(n, key) for key in range(20 * n + 1000)]
    first = Counter(permutation(0) for permutation in drawn)
    step = Counter((permutation(1) - permutation(0)) % n for permutation in drawn)
    for counts, cells in ((first, n), (step, n - 1)):
        expected = len(drawn) / cells
        chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
        assert chi_squared + (cells - len(counts)) * expected < cells + 5 * (2 * cells) ** 0.5


@seldom
@given(n=st.integers(1, 2000), block_rows=st.integers(1, 60), window_blocks=st.integers(1, 12), key=keys)
def test_windows_reach_every_row_once(n, block_rows, window_blocks, key):
    assert sorted(map(Windows(n, block_rows, window_blocks, key), range(n))) == list(range(n))


@seldom
@given(n=st.integers(1, 2000), block_rows=st.integers(1, 60), window_blocks=st.integers(1, 12), key=keys)
def test_rows_of_one_window_come_from_as_few_blocks_as_it_holds_even_if_the_last_block_is_short(
    n, block_rows, window_blocks, key
):
    windows, blocks = Windows(n, block_rows, window_blocks, key), []
    for index in range(n):
        block = windows(index) // block_rows
        # A window ends where its blocks are used up, so each block belongs to one window only.
        if not blocks or (len(blocks[-1]) == window_blocks and block not in blocks[-1]):
            blocks.append(set())
        blocks[-1].add(block)
    assert sum(map(len, blocks)) == -(-n // block_rows)
    assert len(blocks) == -(-len(set().union(*blocks)) // window_blocks)


def test_windows_shuffle_blocks_and_the_rows_within():
    rows = [Windows(1000, 10, 5, key=3)(index) for index in range(1000)]
    assert rows[:50] != sorted(rows[:50])
    assert sorted({row // 10 for row in rows[:50]}) != list(range(5))
    assert rows != [Windows(1000, 10, 5, key=4)(index) for index in range(1000)]


@seldom
@given(sources=sources, seed=keys, shuffle=st.booleans(), interleave=st.booleans(), epoch=st.integers(0, 3))
def test_every_epoch_holds_each_quota_exactly_and_no_item_twice(sources, seed, shuffle, interleave, epoch):
    mix = Mix(sources, seed, shuffle, interleave)
    found = places(mix, epoch)
    assert [Counter(place.source for place in found)[number] for number in range(len(sources))] == mix.quota
    assert max(Counter(found).values()) == 1


@seldom
@given(sources=sources, seed=keys, shuffle=st.booleans())
def test_every_block_holds_each_share_to_within_one_place(sources, seed, shuffle):
    mix = Mix(sources, seed, shuffle)
    found = [place.source for place in places(mix)]
    begin = 0
    for number in range(mix.blocks):
        before, after = mix._before(number), mix._before(number + 1)
        size = sum(after) - sum(before)
        assert abs(size - mix.length / mix.blocks) <= len(sources)
        counts = Counter(found[begin : begin + size])
        for source, quota in enumerate(mix.quota):
            assert counts[source] == after[source] - before[source]
            assert abs(counts[source] - quota / mix.blocks) <= 1
        begin += size


@seldom
@given(sources=sources, seed=keys)
def test_without_shuffling_items_come_at_their_even_times_and_rows_in_file_order(sources, seed):
    mix = Mix(sources, seed, shuffle=False)
    found = places(mix)
    for source, quota in enumerate(mix.quota):
        at = [index for index, place in enumerate(found) if place.source == source]
        assert [found[index].row for index in at] == [item % sources[source].rows for item in range(quota)]
        assert all(
            abs(index - (2 * item + 1) / 2 / quota * mix.length) <= len(sources) + 1 for item, index in enumerate(at)
        )


def test_two_equal_sources_alternate_without_shuffling():
    mix = Mix([Source(3, 3), Source(3, 3)], seed=5, shuffle=False)
    assert [(place.source, place.row) for place in places(mix)] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]


def test_one_after_the_other_is_plain_concatenation():
    mix = Mix([Source(3, 3), Source(2, 2)], seed=5, shuffle=False, interleave=False)
    found = [(place.source, place.row, place.visit) for place in map(mix.place, range(10))]
    assert found[:5] == [(0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 1, 0)]
    assert found[5:] == [(source, row, 1) for source, row, _ in found[:5]]


@seldom
@given(sources=sources, seed=keys, positions=st.lists(st.integers(0, 10_000), min_size=2), shuffle=st.booleans())
def test_a_place_does_not_depend_on_what_was_asked_before_or_in_which_process(sources, seed, positions, shuffle):
    asked = Mix(sources, seed, shuffle)
    found = [asked.place(position) for position in positions]
    assert found == [Mix(sources, seed, shuffle).place(position) for position in positions]
    other = pickle.loads(pickle.dumps(asked))
    assert found[::-1] == [other.place(position) for position in reversed(positions)]
    assert asked.replacement(positions[0], 2) == Mix(sources, seed, shuffle).replacement(positions[0], 2)


def test_the_order_depends_on_seed_and_epoch():
    def rows(seed: int, epoch: int) -> list[int]:
        return [place.row for place in places(Mix([Source(50, 50)], seed), epoch)]

    assert rows(0, 0) != rows(1, 0)
    assert rows(0, 0) != rows(0, 1)
    assert sorted(rows(0, 0)) == sorted(rows(0, 1)) == list(range(50))


def test_the_order_is_the_same_on_every_machine_and_in_every_version():
    mix = Mix([Source(1000, 1000), Source(500, 250, windows=(10, 5))], seed=7)
    assert [(place.source, place.row) for place in map(mix.place, range(6))] == [
        (0, 874),
        (1, 290),
        (0, 118),
        (0, 820),
        (0, 113),
        (1, 266),
    ]


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_low_weight_goes_on_where_it_stopped_and_a_high_one_repeats(shuffle):
    mix = Mix([Source(40, 10), Source(40, 80)], seed=1, shuffle=shuffle)
    epochs = [Counter((place.source, place.row) for place in places(mix, epoch)) for epoch in range(4)]
    for counts in epochs:
        assert sorted(count for (source, _), count in counts.items() if source == 0) == [1] * 10
        assert sorted(count for (source, _), count in counts.items() if source == 1) == [2] * 40
    together = sum(epochs, Counter())
    assert {together[0, row] for row in range(40)} == {1}
    visits = [place.visit for place in places(mix) if place.source == 1]
    assert Counter(visits) == {0: 40, 1: 40}


def test_a_source_that_is_read_in_order_is_shuffled_within_blocks_only():
    mix = Mix([Source(2000, 2000, in_order=True), Source(500, 500)], seed=2)
    rows = [place.row for place in places(mix) if place.source == 0]
    assert rows != sorted(rows)
    assert max(abs(row - index) for index, row in enumerate(rows)) < BLOCK


@seldom
@given(sources=sources, position=st.integers(0, 5000), seed=keys)
def test_replacements_lie_in_the_same_epoch_and_differ_by_position_and_attempt(sources, position, seed):
    mix = Mix(sources, seed)
    epoch = places(mix, position // mix.length)
    drawn = [mix.replacement(position, attempt) for attempt in range(1, 17)]
    assert set(drawn) <= set(epoch)
    if mix.length > 100:
        assert len(set(drawn)) > 8
        assert drawn != [mix.replacement(position + 1, attempt) for attempt in range(1, 17)]


def test_replacements_stay_in_the_block_where_a_source_is_read_in_order():
    mix = Mix([Source(2000, 2000, in_order=True)], seed=2)
    for position in range(0, 4000, 97):
        rows = [mix.replacement(position, attempt).row for attempt in range(1, 17)]
        assert max(abs(row - mix.place(position).row) for row in rows) < BLOCK


def test_weights_give_rounded_quotas_and_at_least_one_place():
    assert quotas([10, 30, 3], [1.0, 0.5, 0.01], [None] * 3) == [10, 15, 1]


@seldom
@given(share=st.floats(0.01, 0.99), rows=st.integers(50, 5000), weight=st.sampled_from([0.5, 1.0, 2.0]))
def test_a_share_is_that_part_of_all_places_and_the_others_fill_the_rest(share, rows, weight):
    first, second, third = quotas([100, rows, 60], [1.0, weight, 1.0], [share, None, None])
    assert (second, third) == (round(rows * weight), 60)
    assert abs(first - share * (first + second + third)) <= 1


@seldom
@given(rows=st.lists(st.integers(100, 5000), min_size=1, max_size=6), data=st.data())
def test_shares_of_all_sets_make_an_epoch_as_long_as_the_sets(rows, data):
    parts = [data.draw(st.integers(1, 9)) for _ in rows]
    found = quotas(rows, [1.0] * len(rows), [part / sum(parts) for part in parts])
    assert sum(found) == sum(rows)
    assert all(abs(quota - part / sum(parts) * sum(rows)) <= 1 for quota, part in zip(found, parts, strict=True))


def test_asked_shares_sum_to_one():
    mix = Mix([Source(10, 30), Source(10, 10)], seed=0)
    assert mix.shares() == [0.75, 0.25]


def test_a_large_mix_answers_fast_and_keeps_next_to_nothing():
    mix = Mix([Source(10**7, 10**7, windows=(300, 60)), Source(10**6, 5 * 10**6), Source(10**5, 10**4)], seed=0)
    begin = time.perf_counter()
    for position in range(20_000_000, 20_020_000):
        mix.place(position)
    assert (time.perf_counter() - begin) / 20_000 < 100e-6  # 5e-6 on a free core
    assert len(pickle.dumps(mix)) < 10_000
