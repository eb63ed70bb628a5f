"""Which questions a limit draws, and which of them each of several processes answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.evaluation.asked import question
from vlm.contracts.errors import InputError
from vlm.evaluation.subset import share, subset

SIXES = [question(number, pictures=(number // 6,)) for number in range(120)]  # twenty pictures, six questions each


def names(questions):
    return [one.id for one in questions]


@pytest.mark.parametrize("limit", [1, 5, 6, 7, 50, 119])
def test_a_limit_is_met_exactly_in_file_order(limit):
    found = names(subset(SIXES, limit, 0, whole_groups=False))
    assert len(found) == len(set(found)) == limit
    assert found == [name for name in names(SIXES) if name in found]


@pytest.mark.parametrize("limit", [None, 120, 1000])
def test_without_a_limit_or_beyond_the_last_question_all_are_asked(limit):
    assert subset(SIXES, limit, 0, whole_groups=False) == SIXES


def test_the_draw_takes_whole_groups_but_for_the_last():
    found = subset(SIXES, 50, 0, whole_groups=False)
    sizes = [sum(one.group == group for one in found) for group in {one.group for one in found}]
    assert sorted(sizes) == [2, *[6] * 8]


def test_the_draw_follows_the_seed_and_neither_the_order_of_files_nor_what_else_there_is():
    first = names(subset(SIXES, 30, 1, whole_groups=False))
    assert first == names(subset(SIXES, 30, 1, whole_groups=False))
    assert sorted(first) == sorted(names(subset(SIXES[60:] + SIXES[:60], 30, 1, whole_groups=False)))
    assert len({tuple(names(subset(SIXES, 30, seed, whole_groups=False))) for seed in range(5)}) == 5


def test_a_larger_limit_asks_the_questions_of_a_smaller_one_too():
    assert set(names(subset(SIXES, 30, 0, whole_groups=False))) < set(names(subset(SIXES, 60, 0, whole_groups=False)))


@pytest.mark.parametrize(("limit", "expected"), [(50, 48), (6, 6), (60, 60)])
def test_groups_that_count_as_a_whole_are_never_cut(limit, expected):
    found = subset(SIXES, limit, 0, whole_groups=True)
    assert len(found) == expected
    assert all(sum(one.group == group for one in found) == 6 for group in {one.group for one in found})


def test_the_draw_of_whole_groups_ends_at_the_first_that_does_not_fit():
    """A smaller one in its place would be drawn more often than its share: small groups are other questions."""
    uneven = SIXES[:12] + [question(number, pictures=(number,)) for number in range(200, 206)]
    sizes = set()
    for seed in range(20):
        order = [one.group for one in subset(uneven, len(uneven) - 1, seed, whole_groups=False)]
        found = subset(uneven, 8, seed, whole_groups=True)
        groups = {one.group for one in found}
        assert all(
            sum(one.group == group for one in uneven) == sum(one.group == group for one in found) for group in groups
        )
        assert groups <= set(order)
        sizes.add(len(found))
    assert max(sizes) <= 8
    assert sizes - {7, 8}, "room for single questions is left where a six comes too late"


def test_a_limit_below_every_whole_group_says_how_large_it_must_be():
    with pytest.raises(InputError, match=r"limit=5: questions come in groups of at least 6; raise limit to that"):
        subset(SIXES, 5, 0, whole_groups=True)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_hold_every_question_once_and_never_divide_a_pictures_questions(parts):
    shares = [share(SIXES, part, parts) for part in range(parts)]
    assert sorted(name for part in shares for name in names(part)) == sorted(names(SIXES))
    homes = [{one.pictures[0].id for one in part} for part in shares]
    assert sum(map(len, homes)) == len(set().union(*homes)) == 20


def test_questions_without_pictures_are_divided_too():
    alone = [replace(question(number), pictures=()) for number in range(40)]
    assert all(0 < len(share(alone, part, 3)) < 40 for part in range(3))


def test_ids_that_are_no_clean_text_are_drawn_too():
    odd = [replace(question(number), group=f"\ud800{number}é猫🐈") for number in range(9)]
    assert len(subset(odd, 4, 0, whole_groups=False)) == 4
