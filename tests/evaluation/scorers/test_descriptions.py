"""Descriptions of one coloured shape: right, or what was made up."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.scorers.rows import figures, scored
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_answer, scorer
from vlm.evaluation.scorers.descriptions import TEMPLATE

RED_CIRCLE = {"color": "red", "shape": "circle"}
GOLDS = [RED_CIRCLE, RED_CIRCLE, {"colour": "gray", "shape": "triangle"}, {"color": "teal", "shape": "rectangle"}]
TRUTH = [TEMPLATE.format(gold.get("color", gold.get("colour")), gold["shape"]) for gold in GOLDS]


def test_the_prepared_captions_are_right():
    found = figures("descriptions", scored("descriptions", TRUTH, GOLDS))
    assert found == {"right": 1, "wrong_colour": 0, "wrong_shape": 0, "invented": 0, "any_hallucination": 0}


@pytest.mark.parametrize(
    ("said", "right", "faults"),
    [
        ("A single red circle.", 1, set()),
        ("The circle is red.", 1, set()),
        ("there is one blue circle", 0, {"wrong_colour"}),
        ("there is one red square", 0, {"wrong_shape"}),
        ("there is one green triangle", 0, {"wrong_colour", "wrong_shape"}),
        ("there is one red circle and one blue triangle", 0, {"invented"}),
        ("a red circle and a red circle", 0, {"invented"}),
        ("two red circles", 0, {"invented"}),
        ("a red and white circle", 0, {"invented"}),
        ("a circle", 0, set()),
        ("something red", 0, set()),
    ],
)
def test_a_description_is_right_or_says_what_is_not_there(said, right, faults):
    record = score_answer("descriptions", said, RED_CIRCLE)
    assert record["score"] == right
    assert {name for name in ("wrong_colour", "wrong_shape", "invented") if record[name]} == faults


def test_a_text_without_colour_and_shape_is_unparsable():
    rows = scored("descriptions", ["a nice picture", "", "一个红色的圆", "a red thing"], GOLDS)
    assert [row.unparsable for row in rows] == [True, True, True, False]


def test_constants_score_their_shares_and_naming_everything_is_never_right():
    constants = scorer("descriptions").constants(GOLDS)
    found = {name: figures("descriptions", scored("descriptions", said, GOLDS)) for name, said in constants.items()}
    assert found["most frequent drawing"]["right"] == 0.5
    assert found["all colours and shapes"]["right"] == 0
    assert found["all colours and shapes"]["any_hallucination"] == 1
    assert found["empty"] == {"right": 0, "wrong_colour": 0, "wrong_shape": 0, "invented": 0, "any_hallucination": 0}


@pytest.mark.parametrize("wrong", [{}, {"color": "red"}, {"color": "reddish", "shape": "circle"}, "red circle", None])
def test_gold_data_without_colour_and_shape_is_refused(wrong):
    with pytest.raises(InputError, match="descriptions"):
        score_answer("descriptions", "red circle", wrong)


@settings(deadline=None, max_examples=80, derandomize=True)
@given(st.text(max_size=60))
def test_any_answer_is_read(text):
    assert score_answer("descriptions", text, RED_CIRCLE)["score"] in (0.0, 1.0)


def test_an_endless_description_is_read_in_no_time():
    start = time.perf_counter()
    score_answer("descriptions", "one red circle " * 7_000, RED_CIRCLE)
    assert time.perf_counter() - start < 5
