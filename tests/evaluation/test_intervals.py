from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from vlm.evaluation.intervals import mean_interval, paired_gain, wilson

ROWS = [json.loads(line) for line in (Path(__file__).parents[1] / "fixtures/eval/intervals.jsonl").open()]
CONFIDENCE = {"wilson": 0.95, "wilson99": 0.99}


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_wilson_agrees_with_statsmodels(row):
    successes, n = row["prediction"]
    low, high = wilson(successes, n, confidence=CONFIDENCE[row["id"].split("/")[1]])
    assert low == pytest.approx(row["expected"]["low"], abs=1e-12)
    assert high == pytest.approx(row["expected"]["high"], abs=1e-12)


def test_wilson_gives_the_interval_of_nineteen_of_twenty():
    """76.4 to 99.1 %, as computed for purevlm's published 19 of 20."""
    low, high = wilson(19, 20)
    assert (round(low, 3), round(high, 3)) == (0.764, 0.991)


def test_wilson_ends_exactly_at_zero_and_one():
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_proportion(successes, n):
    with pytest.raises(ValueError, match="no proportion"):
        wilson(successes, n)


def test_mean_over_three_seeds_has_the_interval_of_student_t():
    # mean 2, deviation 1, quantile of t with two degrees of freedom 4.302653
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx(
        (2.0, 2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3))
    )


def test_one_seed_tells_nothing_about_the_spread():
    assert mean_interval([0.4]) == (0.4, -math.inf, math.inf)


def test_a_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


def test_equal_gains_a_token_have_no_error():
    gain, error = paired_gain([1.0, 2.0, 4.0], [2, 4, 8], [0, 1, 2])
    assert (gain, error) == (0.5, 0.0)


def test_paired_gain_by_hand():
    # gain = 6/6 = 1; residuals 2-2, 1-2, 3-2 -> squares sum to 2; sqrt(3/2 * 2) / 6
    gain, error = paired_gain([2.0, 1.0, 3.0], [2, 2, 2], ["a", "b", "c"])
    assert gain == 1.0
    assert error == pytest.approx(math.sqrt(3) / 6)


def test_samples_of_one_picture_are_one_draw():
    """Five captions a picture that say the same are no more evidence than one."""
    once = paired_gain([2.0, 1.0, 3.0], [2, 2, 2], [7, 8, 9])
    five = paired_gain(np.repeat([2.0, 1.0, 3.0], 5), [2] * 15, np.repeat([7, 8, 9], 5))
    assert five == pytest.approx(once)


def test_one_picture_alone_has_an_infinite_error():
    assert paired_gain([2.0, 1.0], [3, 3], [5, 5]) == (0.5, math.inf)


@pytest.mark.parametrize(
    ("deltas", "tokens", "clusters", "message"),
    [([1.0], [1, 2], [0], "one length"), ([1.0], [0], [0], "no token"), ([], [], [], "no token")],
)
def test_paired_gain_refuses_what_it_cannot_weigh(deltas, tokens, clusters, message):
    with pytest.raises(ValueError, match=message):
        paired_gain(deltas, tokens, clusters)
