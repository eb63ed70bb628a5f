"""MMMU: letters by three rules, open answers by their texts and numbers."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.scorers.rows import figures, scored
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_answer, scorer
from vlm.evaluation.scorers.mmmu_open import read


def choice(gold: str, options=("left", "right", "the one in front"), subject: str = "Art") -> dict:
    return {"subject": subject, "question_type": "multiple-choice", "options": list(options), "gold": gold}


def open_row(gold, subject: str = "Art") -> dict:
    return {"subject": subject, "question_type": "open", "gold": gold}


GOLDS = [choice("A"), choice("A"), choice("B"), choice("C", subject="Math"), open_row("24.5"), open_row(["x", "2/3"])]


@pytest.mark.parametrize("variant", ["official", "lmms", "vlmevalkit"])
def test_gold_letters_score_one_by_every_rule(variant):
    rows = scored("mmmu", ["A", "A", "B", "C"], GOLDS[:4], variant)
    assert [row.score for row in rows] == [1.0] * 4


def test_the_truth_scores_one_and_choice_and_open_are_told_apart():
    rows = scored("mmmu", ["A", "A", "B", "C", "24.5", "2/3"], GOLDS)
    assert figures("mmmu", rows) == {"accuracy": 1.0, "choice": 1.0, "open": 1.0}
    half = scored("mmmu", ["A", "A", "B", "C", "", "no"], GOLDS)
    assert figures("mmmu", half) == {"accuracy": pytest.approx(4 / 6), "choice": 1.0, "open": 0.0}


def test_lmms_never_finds_an_open_answer_right():
    assert score_answer("mmmu", "24.5", "24.5", "lmms-open") == {"score": 0}


def test_constant_letters_score_their_share_of_the_choices():
    constants = scorer("mmmu").constants(GOLDS)
    scores = {name: figures("mmmu", scored("mmmu", said, GOLDS))["choice"] for name, said in constants.items()}
    assert scores == {
        "always A": 0.5,
        "always B": 0.25,
        "always C": 0.25,
        "best letter of each subject": 0.75,  # A in Art, C in Math
        "longest option": 0.25,
        "last option": 0.25,
        "empty": 0.0,
    }


def test_a_letter_that_is_drawn_at_random_elsewhere_is_wrong_and_unparsable_here():
    (row,) = scored("mmmu", ["I do not know"], [choice("A")])
    assert (row.score, row.unparsable, row.parsed) == (0.0, True, None)


def test_every_number_after_a_key_word_may_be_the_answer_even_a_part_of_one():
    assert read("The answer is 1,060.004 or 7") == (["1,060.004 or 7"], [7.0, 60.0, 1060.0])


@pytest.mark.parametrize(
    "wrong",
    [
        choice("D"),
        choice("A", []),
        choice("A", ["x"] * 27),
        open_row(""),
        open_row([]),
        {"question_type": "multiple-choice", "gold": "A"},
    ],
)
def test_gold_data_that_cannot_be_right_is_refused(wrong):
    with pytest.raises(InputError):
        score_answer("mmmu", "A", wrong, "official")


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.text(max_size=80))
def test_any_answer_is_read_without_a_crash(text):
    for variant in scorer("mmmu").cases:
        gold = open_row("5") if variant.endswith("open") else choice("A")
        assert score_answer("mmmu", text, gold, variant)["score"] in (0, 1)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.text("bcdfghjklm 0123456789", min_size=1, max_size=20).filter(str.strip))
def test_an_open_gold_text_scores_one(gold):
    assert score_answer("mmmu", gold, gold, "official-open")["score"] == 1
    assert score_answer("mmmu", f"The answer is {gold}.", gold, "official-open")["score"] == 1


@pytest.mark.parametrize("text", ["9" * 100_000, "1," * 50_000, "1." * 50_000, "5e" * 50_000, "is \n" * 25_000])
def test_long_runs_of_digits_are_read_in_no_time(text):
    start = time.perf_counter()
    read(text)
    assert time.perf_counter() - start < 5
