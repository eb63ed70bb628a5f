"""ChartQA: five percent for numbers, letter case for texts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.scorers.rows import figures, scored
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_answer, scorer

GOLDS = [
    {"answer": "42", "type": "human_test"},
    {"answer": "2014", "type": "human_test"},
    {"answer": "Blue", "type": "augmented_test"},
    {"answer": "42", "type": "augmented_test"},
]


def test_the_truth_scores_one_in_every_measure():
    found = figures("chartqa", scored("chartqa", ["42", "2014", "Blue", "42"], GOLDS))
    assert found == {"relaxed accuracy": 1, "human": 1, "augmented": 1, "exact match": 1}


def test_a_year_may_be_a_century_off_and_the_exact_match_shows_it():
    found = figures("chartqa", scored("chartqa", ["44", "1914", "blue", "x"], GOLDS))
    assert found == {"relaxed accuracy": 0.75, "human": 1, "augmented": 0.5, "exact match": 0.25}


def test_constants_score_their_shares():
    constants = scorer("chartqa").constants(GOLDS)
    assert set(constants) == {"most frequent answer", "empty"}
    found = {
        name: figures("chartqa", scored("chartqa", said, GOLDS))["exact match"] for name, said in constants.items()
    }
    assert found == {"most frequent answer": 0.5, "empty": 0}


def test_an_empty_answer_is_unparsable_and_a_wrong_one_is_not():
    assert [row.unparsable for row in scored("chartqa", [" \n", "x"], GOLDS[:2])] == [True, False]


def test_nan_equals_nothing():
    assert score_answer("chartqa", "nan", "nan", "lmms") == {"score": 0.0}


@pytest.mark.parametrize("wrong", [None, {"type": "human_test"}, {"answer": True}, {"answer": ["42"]}])
def test_gold_data_without_a_text_is_refused(wrong):
    with pytest.raises(InputError, match="gold answer"):
        score_answer("chartqa", "42", wrong, "lmms")


@settings(deadline=None, max_examples=80, derandomize=True)
@given(st.text(max_size=30), st.text(max_size=30))
def test_any_answer_is_compared_without_a_crash(said, gold):
    for variant in ("lmms", "vlmevalkit"):
        assert score_answer("chartqa", said, gold, variant)["score"] in (0.0, 1.0)


@settings(deadline=None, max_examples=80, derandomize=True)
@given(st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: abs(value) > 1e-200))
def test_a_gold_number_scores_one_and_so_does_what_is_four_percent_off(value):
    assert score_answer("chartqa", str(value), str(value), "lmms")["score"] == 1
    if abs(value) < 1e300:
        assert score_answer("chartqa", str(value * 1.04), str(value), "lmms")["score"] == 1
        assert score_answer("chartqa", str(value * 1.06), str(value), "lmms")["score"] == 0
