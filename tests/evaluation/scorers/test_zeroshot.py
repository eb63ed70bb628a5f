"""Zero-shot classification: accuracy, recall by class, and the classifier from templates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.scorers.rows import figures, scored
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_answer, scorer
from vlm.evaluation.scorers.zeroshot import classifier

GOLDS = [{"label": name} for name in ("cat", "cat", "cat", "dog", "cow")]


def test_the_truth_scores_one():
    found = figures("zeroshot", scored("zeroshot", [gold["label"] for gold in GOLDS], GOLDS))
    assert found == {"accuracy": 1.0, "mean per-class recall": 1.0}


def test_the_constant_class_has_its_share_and_a_recall_of_one_in_c():
    said = scorer("zeroshot").constants(GOLDS)["most frequent class"]
    found = figures("zeroshot", scored("zeroshot", said, GOLDS))
    assert found == {"accuracy": 0.6, "mean per-class recall": pytest.approx(1 / 3)}


def test_top_five_is_undefined_below_five_classes():
    five = [{"label": str(number)} for number in range(6)]
    ranked = ["\n".join(str((number + shift) % 6) for shift in range(1, 7)) for number in range(6)]
    assert figures("zeroshot", scored("zeroshot", ranked, five))["top-5"] == 0.0
    assert score_answer("zeroshot", np.eye(4).tolist(), [0, 1, 2, 3])["acc5"] is None


def test_equal_logits_are_wrong():
    assert score_answer("zeroshot", np.ones((6, 5)).tolist(), [0, 1, 2, 3, 4, 0])["acc1"] == 0.0


def test_class_vectors_have_length_one():
    vectors = classifier(np.random.default_rng(0).normal(size=(3, 4, 8)))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1])


@pytest.mark.parametrize(
    ("logits", "gold"), [([[np.nan, 1]], [0]), ([[0, 1]], [2]), ([[0, 1]], [-1]), ([[0, 1]], [0, 1]), ([0, 1], [0])]
)
def test_logits_that_cannot_be_ranked_are_refused(logits, gold):
    with pytest.raises(InputError, match="zeroshot"):
        score_answer("zeroshot", logits, gold)


def test_a_row_without_a_class_is_refused():
    with pytest.raises(InputError, match="names no class"):
        scored("zeroshot", ["cat"], [{"label": ""}])


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.text(max_size=40))
def test_any_answer_is_scored(text):
    (row,) = scored("zeroshot", [text], GOLDS[:1])
    assert row.score == float(text.strip().split("\n")[0].strip() == "cat")
