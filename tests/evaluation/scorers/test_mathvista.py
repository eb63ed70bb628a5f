"""MathVista: what is read without a judge, and what a nearest choice decides."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.scorers.rows import figures, scored
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_answer, scorer

CHOICES = ["cat", "dog", "red bicycle"]


def choice(answer: str) -> dict:
    return {"question_type": "multi_choice", "answer_type": "text", "answer": answer, "choices": CHOICES}


def number(answer: str, kind: str = "integer", precision: float | None = None) -> dict:
    return {"question_type": "free_form", "answer_type": kind, "answer": answer, "precision": precision}


GOLDS = [choice("cat"), choice("dog"), number("2"), number("7"), number("1.5", "float", 1), number("[1, 2]", "list")]
TRUTH = ["cat", "dog", "2", "7", "1.5", 'The answer is "[1, 2]".']


@pytest.mark.parametrize("variant", ["official", "closed", "lmms-quick"])
def test_the_truth_scores_one(variant):
    assert [row.score for row in scored("mathvista", TRUTH, GOLDS, variant)] == [1.0] * 6


def test_measures_tell_the_kinds_of_answers_apart():
    found = figures("mathvista", scored("mathvista", [*TRUTH[:3], "8", "", ""], GOLDS))
    assert found == {
        "accuracy": 0.5, "choice": 1.0, "integer": 0.5, "float": 0.0, "list": 0.0, "nearest-choice": 0.0,
    }  # fmt: skip


def test_a_bare_letter_is_read_by_the_closed_form_alone():
    """The short prompt asks for one, and the public rules leave it to a judge."""
    (official,) = scored("mathvista", ["B"], [choice("dog")], "official")
    (closed,) = scored("mathvista", ["B"], [choice("dog")], "closed")
    assert (official.unparsable, official.score) == (True, 0.0)
    assert (closed.parsed, closed.score) == ("dog", 1.0)


def test_constants_score_the_shares_of_their_letters_and_numbers():
    constants = scorer("mathvista").constants(GOLDS)
    scores = {
        name: figures("mathvista", scored("mathvista", said, GOLDS))["accuracy"] for name, said in constants.items()
    }
    assert scores == pytest.approx({"always A": 1 / 6, "always B": 1 / 6, "always A and 2": 2 / 6, "empty": 0})


def test_rows_decided_by_edit_distance_are_counted():
    found = figures("mathvista", scored("mathvista", ['The answer is "cats".', "dog"], [choice("cat"), choice("dog")]))
    assert (found["accuracy"], found["nearest-choice"]) == (1.0, 0.5)


def test_an_empty_answer_is_unparsable_here_and_the_shortest_choice_elsewhere():
    assert score_answer("mathvista", "", choice("cat"), "official") == {"normalized": None, "score": 0}
    assert score_answer("mathvista", "", choice("cat"), "lmms")["score"] == 1


@pytest.mark.parametrize("wrong", [choice("cow"), number("5", "text"), {"answer": "5"}, "5"])
def test_gold_data_that_cannot_be_right_is_refused(wrong):
    with pytest.raises(InputError):
        score_answer("mathvista", "5", wrong, "official")


@settings(deadline=None, max_examples=80, derandomize=True)
@given(st.text(max_size=60) | st.floats().map(str) | st.integers().map(str))
def test_any_answer_is_read_without_a_crash(text):
    for variant in scorer("mathvista").cases:
        for gold in GOLDS:
            assert score_answer("mathvista", text, gold, variant)["score"] in (0, 1, None)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(-(10**9), 10**9))
def test_a_gold_integer_scores_one(value):
    for variant in ("official", "closed", "lmms"):
        assert score_answer("mathvista", str(value), number(str(value)), variant)["score"] == 1
