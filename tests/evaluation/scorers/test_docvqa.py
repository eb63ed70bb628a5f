"""DocVQA: edit distance to the nearest gold answer."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.scorers.rows import figures, scored
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_answer, scorer

GOLDS = [{"answers": ["ITC Limited", "ITC"]}, {"answers": ["1993"]}, {"answers": ["1993"]}]


def test_the_truth_scores_one():
    assert figures("docvqa", scored("docvqa", ["itc", "1993", "1993"], GOLDS)) == {"ANLS": 1, "exact match": 1}


def test_exactly_half_right_counts_and_less_counts_nothing():
    assert score_answer("docvqa", "abcd", ["abxy"]) == {"score": 0.5}
    assert score_answer("docvqa", "abcdefg", ["abcwxyz"]) == {"score": 0.0}


def test_constants_score_their_shares():
    constants = scorer("docvqa").constants(GOLDS)
    found = {name: figures("docvqa", scored("docvqa", said, GOLDS))["ANLS"] for name, said in constants.items()}
    assert found == pytest.approx({"most frequent answer": 2 / 3, "empty": 0})


def test_two_empty_texts_are_no_division_by_zero():
    assert score_answer("docvqa", " ", [""], "stvqa") == {"score": 0.0}


@pytest.mark.parametrize("wrong", [[], None, {"answers": []}, [3], {"answer": "x"}])
def test_gold_data_without_a_text_is_refused(wrong):
    with pytest.raises(InputError, match="gold answers"):
        score_answer("docvqa", "x", wrong)


@settings(deadline=None, max_examples=80, derandomize=True)
@given(st.text(max_size=30), st.lists(st.text(max_size=30), min_size=1, max_size=3))
def test_scores_stay_between_zero_and_one(said, golds):
    for variant in scorer("docvqa").cases:
        assert 0 <= score_answer("docvqa", said, golds, variant)["score"] <= 1


@settings(deadline=None, max_examples=80, derandomize=True)
@given(st.text(min_size=1, max_size=30))
def test_a_gold_text_scores_one(text):
    assert score_answer("docvqa", text, [text, "other"])["score"] == 1


def test_an_endless_answer_is_compared_in_no_time():
    start = time.perf_counter()
    score_answer("docvqa", "ab c" * 25_000, ["University of California"])
    assert time.perf_counter() - start < 5
