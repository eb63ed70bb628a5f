"""POPE and MME: what is read as yes or no, and the figures over rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.scorers.rows import figure, figures, mme, pope, scored
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_answer, scorer
from vlm.evaluation.scorers.mme import COGNITION, PERCEPTION
from vlm.evaluation.scorers.yesno import yes_or_no

BALANCED = pope(["yes", "no", "no", "yes"] * 3, ("random", "popular", "adversarial"))


@pytest.mark.parametrize(
    ("text", "label"),
    [("Yes.", "yes"), ("**no**", None), ("no!", "no"), ("there is no dog", "no"), ("yes and no", None), ("know", None),
     ("", None), ("はい", None), ("(yes)", "yes"), ("👍", None)],
)  # fmt: skip
def test_one_of_the_two_words_is_looked_for(text, label):
    assert yes_or_no(text) == label


def test_always_yes_looks_good_by_f1_and_is_unmasked_by_its_share_of_yes():
    rows = scored("pope", scorer("pope").constants(BALANCED)["always yes"], BALANCED)
    expected = {"accuracy": 0.5, "precision": 0.5, "recall": 1, "f1": 2 / 3, "yes_ratio": 1, "f1_mean": 2 / 3}
    assert figures("pope", rows) == pytest.approx(expected)


def test_always_no_has_no_precision_and_an_f1_of_zero():
    found = figures("pope", scored("pope", scorer("pope").constants(BALANCED)["always no"], BALANCED))
    assert math.isnan(found.pop("precision"))
    assert found == pytest.approx({"accuracy": 0.5, "recall": 0, "f1": 0, "yes_ratio": 0, "f1_mean": 0})


def test_what_cannot_be_read_is_wrong_and_stays_in_the_denominator():
    gold = pope(["yes", "yes", "no", "no"])
    rows = scored("pope", ["yes", "maybe", "", "no"], gold)
    assert [row.unparsable for row in rows] == [False, True, True, False]
    found = figures("pope", rows)
    assert found == pytest.approx({"accuracy": 0.5, "precision": 1, "recall": 0.5, "f1": 2 / 3, "yes_ratio": 0.25})


def test_the_official_rule_takes_silence_for_yes():
    rows = scored("pope", [""] * 12, BALANCED, "official")
    assert figures("pope", rows)["f1"] == pytest.approx(2 / 3)
    assert figures("pope", scored("pope", [""] * 12, BALANCED))["accuracy"] == 0


def test_both_shapes_of_gold_data_are_taken():
    assert score_answer("pope", "Yes", "yes") == score_answer("pope", "Yes", {"label": "yes"})
    assert score_answer("mme", "Yes", "yes") == score_answer("mme", "Yes", {"answer": "Yes"})
    for benchmark in ("pope", "mme"):
        with pytest.raises(InputError, match="neither yes nor no"):
            score_answer(benchmark, "yes", "maybe")


@pytest.mark.parametrize("word", ["always yes", "always no"])
def test_a_constant_scores_50_a_category_and_700_in_all(word):
    gold = mme([*PERCEPTION, *COGNITION])
    found = figures("mme", scored("mme", scorer("mme").constants(gold)[word], gold))
    assert found == pytest.approx({"total": 700, "perception": 500, "cognition": 200, "accuracy": 0.5})


def test_the_truth_scores_2800_of_2800():
    gold = mme([*PERCEPTION, *COGNITION])
    measures = scorer("mme").measures(scored("mme", [row["answer"] for row in gold], gold))
    assert [(figure(measure), measure.top) for measure in measures] == [(2800, 2800), (2000, 2000), (800, 800), (1, 1)]


def test_parts_are_told_only_where_their_categories_occur():
    own = mme(["colour of things"])
    assert set(figures("mme", scored("mme", ["yes"] * 4, own))) == {"total", "accuracy"}
    some = mme(["OCR", "colour of things"])
    assert figures("mme", scored("mme", ["yes"] * 8, some))["perception"] == 50


def test_pictures_of_two_categories_may_share_a_name():
    gold = mme(["count", "color"], pictures=1)
    assert figures("mme", scored("mme", ["yes", "no", "yes", "yes"], gold))["total"] == 200 + 50


def test_a_picture_with_one_question_is_refused():
    gold = mme(["count"])[:3]
    with pytest.raises(InputError, match=r"picture '1.jpg' of category 'count' has 1 rows, not two"):
        figures("mme", scored("mme", ["yes"] * 3, gold))
    with pytest.raises(InputError, match="has no 'category'"):
        figures("mme", scored("mme", ["yes"], ["yes"]))


def test_a_resample_without_a_category_keeps_the_scale():
    measure = scorer("mme").measures(scored("mme", ["yes", "no"] * 4, mme(["count", "color"])))[0]
    assert float(measure.combine(measure.columns[:4].sum(0))) == 400
    assert measure.combine(np.stack([measure.columns[:4].sum(0), measure.columns.sum(0)])).tolist() == [400, 400]


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.sampled_from(["yes", "no", "", "who knows", "Yes!"]), min_size=12, max_size=12), st.randoms())
def test_the_order_of_rows_does_not_matter(predictions, random):
    for benchmark, gold in (("pope", BALANCED), ("mme", mme(["count", "OCR", "own"]))):
        rows = scored(benchmark, predictions, gold)
        expected = figures(benchmark, rows)
        random.shuffle(rows)
        assert figures(benchmark, rows) == pytest.approx(expected, nan_ok=True)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.sampled_from(["yes", "no"]), min_size=1, max_size=30))
def test_the_truth_always_scores_one(labels):
    gold = pope(labels)
    for variant in scorer("pope").cases:
        assert figures("pope", scored("pope", labels, gold, variant))["accuracy"] == 1
    for variant in scorer("mme").cases:
        assert all(score_answer("mme", label, label, variant)["score"] == 1 for label in labels)
