"""Micro-batches of a step: which samples, how many, for which rank."""

from __future__ import annotations

import re
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm.contracts.errors import InputError
from vlm.data.plan import Cost, Planner, batches_once, micro_batch_of, steps_from

often = settings(max_examples=80, deadline=None, derandomize=True)


def lengths(position: int) -> Cost:
    return Cost(tokens=20 + position * 7919 % 400, views=position % 4)


def positions(parts: list[list[int]]) -> list[int]:
    return sorted(position for part in parts for position in part)


@often
@given(
    step=st.integers(0, 999),
    micro=st.sampled_from([1, 2, 4, 8]),
    world=st.sampled_from([1, 2, 4]),
    budget=st.sampled_from([None, 200, 900]),
)
def test_a_step_holds_its_positions_once_whatever_the_hardware(step, micro, world, budget):
    planner = Planner(32, min(micro, 32 // world), world, budget, lengths)
    parts = planner(step)
    assert positions(parts) == list(range(step * 32, step * 32 + 32))
    assert len(parts) % world == 0
    assert all(parts)
    assert max(map(len, parts)) <= planner.micro_batch
    assert planner(step) == parts


def test_without_an_index_micro_batches_are_neighbours():
    assert Planner(8, 4)(1) == [[8, 9, 10, 11], [12, 13, 14, 15]]
    assert Planner(8, 4, cost=lambda position: None)(0) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_micro_batches_are_the_same_for_any_number_of_ranks():
    one, two = Planner(32, 4, 1, None, lengths), Planner(32, 4, 2, None, lengths)
    assert one(3) == two(3)
    shares = [next(steps_from(two, 3, rank)) for rank in range(2)]
    assert [part for pair in zip(*shares, strict=True) for part in pair] == one(3)


def test_ranks_get_similar_loads_of_tokens_and_views():
    planner = Planner(64, 16, 4, None, lengths)
    for step in range(20):
        parts = planner(step)
        tokens = [sum(lengths(position).tokens for position in part) for part in parts]
        views = [sum(lengths(position).views for position in part) for part in parts]
        assert max(tokens) / min(tokens) < 1.1
        assert max(views) - min(views) <= 1


def test_a_token_budget_bounds_every_micro_batch_but_a_sample_that_is_longer_alone():
    planner = Planner(
        32, 32, 2, 500, lambda position: Cost(600 if position == 5 else lengths(position).tokens % 200, 0)
    )
    for step in range(5):
        for part in planner(step):
            assert sum(planner.cost(position).tokens for position in part) <= 500 or part == [5]


def test_the_budget_takes_no_more_micro_batches_than_it_needs():
    even = Planner(32, 32, 1, 400, lambda position: Cost(100, 0))
    assert [len(part) for part in even(0)] == [4] * 8


def test_every_rank_validates_as_often_and_rows_stand_in_the_same_batches():
    whole = batches_once(150, 64, 0, 1)
    assert [len(batch) for batch in whole] == [64, 64, 22]
    first, second = (batches_once(150, 64, rank, 2) for rank in range(2))
    assert len(first) == len(second) == 2
    assert [first[0], second[0], first[1]] == whole
    assert second[1] == whole[-1]  # once more, and not counted


def test_a_step_that_processes_cannot_share_is_refused_with_the_keys_to_change():
    assert micro_batch_of(64, None, 4) == 16
    assert micro_batch_of(64, 8, 4) == 8
    with pytest.raises(
        InputError, match=r"10 is not a multiple of 4 \(4 processes\); choose phase.global_batch=8 or 12$"
    ):
        micro_batch_of(10, None, 4)
    with pytest.raises(InputError, match=r"64 is not a multiple of 10 \(2 processes of hardware.micro_batch \(5\)\)"):
        micro_batch_of(64, 5, 2)


def test_every_value_that_a_refusal_names_fits():
    for whole in range(1, 40):
        for micro in (None, *range(1, 12)):
            for world in (1, 2, 3):
                try:
                    micro_batch_of(whole, micro, world)
                except InputError as error:
                    advice = str(error).partition("choose ")[2]
                    found = {
                        key: re.findall(r"\d+", text) for key, text in re.findall(r"(\w+)=(\d+(?: or \d+)?)", advice)
                    }
                    assert found["global_batch"]
                    for size in found["global_batch"]:
                        assert micro_batch_of(int(size), micro, world)
                    for size in found.get("micro_batch", ()):
                        assert micro_batch_of(whole, int(size), world) == int(size)


def test_steps_start_anywhere():
    planner = Planner(8, 4)
    assert list(islice(steps_from(planner, 5, 0), 2)) == [planner(5), planner(6)]
