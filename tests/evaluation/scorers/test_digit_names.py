"""Names of digits: the whole answer or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.scorers.rows import figures, scored
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_answer, scorer

GOLDS = ["seven", {"answer": "Two"}, "seven", "one"]


def test_the_truth_scores_one_whatever_its_case():
    found = figures("digit_names", scored("digit_names", [" Seven\n", "two", "seven", "ONE"], GOLDS))
    assert found == {"accuracy": 1.0, "mean over digits": 1.0}


def test_the_most_frequent_name_scores_its_share():
    constants = scorer("digit_names").constants(GOLDS)
    found = {name: figures("digit_names", scored("digit_names", said, GOLDS)) for name, said in constants.items()}
    assert found["most frequent answer"] == {"accuracy": 0.5, "mean over digits": pytest.approx(1 / 3)}
    assert found["empty"]["accuracy"] == 0


def test_a_sentence_around_the_name_is_wrong_and_an_empty_answer_unparsable():
    rows = scored("digit_names", ["it is seven", " "], GOLDS[:2])
    assert [(row.score, row.unparsable) for row in rows] == [(0.0, False), (0.0, True)]


@pytest.mark.parametrize("wrong", ["", 7, {"label": "seven"}])
def test_gold_data_without_a_name_is_refused(wrong):
    with pytest.raises(InputError, match="names no digit"):
        score_answer("digit_names", "seven", wrong)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.text(max_size=30))
def test_any_answer_is_read(text):
    assert score_answer("digit_names", text, "seven")["score"] == float(text.strip().lower() == "seven")
