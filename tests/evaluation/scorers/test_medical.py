"""Medical questions: open answers by their words, closed ones strictly, and what a long answer would win."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.scorers.rows import figures, scored
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_answer, scorer

SETS = ("vqa_rad", "slake", "pathvqa")
GOLDS = [
    {"answer": "left lung", "answer_type": "OPEN"},
    {"answer": "pleural effusion", "answer_type": "OPEN"},
    {"answer": "yes", "answer_type": "CLOSED"},
    {"answer": "yes", "answer_type": "CLOSED"},
    {"answer": "no", "answer_type": "CLOSED"},
    {"answer": "axial", "answer_type": "CLOSED"},
]
TRUTH = [gold["answer"] for gold in GOLDS]


@pytest.mark.parametrize("benchmark", SETS)
def test_the_truth_scores_one(benchmark):
    found = figures(benchmark, scored(benchmark, TRUTH, GOLDS))
    assert found.pop("words") == pytest.approx(8 / 6)
    assert found.pop("closed accuracy (llavamed)") == 0.75  # a right "axial" is wrong there
    assert set(found.values()) == {1.0}


def test_all_gold_answers_at_once_win_the_recall_and_nothing_else():
    opened = " ".join(dict.fromkeys(gold["answer"] for gold in GOLDS if gold["answer_type"] == "OPEN"))
    commonest = scorer("vqa_rad").constants(GOLDS)["most frequent answer"]
    said = [opened if gold["answer_type"] == "OPEN" else answer for gold, answer in zip(GOLDS, commonest, strict=True)]
    found = figures("vqa_rad", scored("vqa_rad", said, GOLDS))
    assert found["open recall"] == 1.0
    assert found["open equal"] == 0.0
    assert found["open F1"] == pytest.approx(2 / 3)
    assert found["words"] == pytest.approx((2 * 4 + 4) / 6)


def test_constants_score_the_gold_shares():
    constants = scorer("slake").constants(GOLDS)
    found = {
        name: figures("slake", scored("slake", said, GOLDS))["closed accuracy"] for name, said in constants.items()
    }
    assert found == {
        "always yes": 0.5, "always no": 0.25, "most frequent answer": 0.5, "empty": 0,
    }  # fmt: skip


def test_normal_is_no_no():
    """The lenient rule finds "no" in it."""
    gold = {"answer": "no", "answer_type": "CLOSED"}
    assert score_answer("vqa_rad", "normal", gold, "llavamed")["score"] == 1
    (row,) = scored("vqa_rad", ["normal"], [gold])
    assert (row.score, row.unparsable) == (0.0, True)


def test_a_chinese_yes_is_a_yes_for_slake_alone():
    assert score_answer("slake", "是的", {"answer": "yes"}, "lmms")["score"] == 1


def test_candidates_of_the_gold_data_are_chosen_between():
    gold = {"answer": "left lung", "answer_type": "OPEN", "candidates": ["heart", "left lung"]}
    assert score_answer("pathvqa", "a lung", gold, "llavamed-open")["open_candidate_accuracy"] == 1.0
    without = {"answer": "left lung", "answer_type": "OPEN"}
    assert score_answer("pathvqa", "a lung", without, "llavamed-open")["open_candidate_accuracy"] is None


@pytest.mark.parametrize("wrong", [{"answer": "x"}, {"answer_type": "OPEN"}, {"answer": None, "answer_type": "OPEN"}])
def test_gold_data_without_answer_or_kind_is_refused(wrong):
    with pytest.raises(InputError, match="medical"):
        score_answer("vqa_rad", "x", wrong)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.text(max_size=60), st.text(max_size=30))
def test_any_answer_is_scored_between_zero_and_one(said, answer):
    for kind in ("OPEN", "CLOSED"):
        for variant in ("strict", "llavamed", "lmms"):
            record = score_answer("slake", said, {"answer": answer, "answer_type": kind}, variant)
            assert 0 <= record["score"] <= 1


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.text(alphabet="abcdefghij klm", min_size=4).filter(lambda text: len(text.split()) > 1))
def test_a_gold_text_of_words_has_full_recall(answer):
    assert score_answer("vqa_rad", answer, {"answer": answer, "answer_type": "OPEN"})["score"] in (0.0, 1.0)
    assert (
        score_answer("vqa_rad", f"heart {answer}", {"answer": f"heart {answer}", "answer_type": "OPEN"})["score"] == 1
    )
