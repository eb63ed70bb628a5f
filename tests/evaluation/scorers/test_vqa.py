"""VQA accuracy and the normalisation in front of it."""

from __future__ import annotations

import pytest

from tests.evaluation.scorers.rows import figures, scored
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_answer, scorer
from vlm.evaluation.scorers.normalise import CONTRACTIONS, normalise, normalise_evalai
from vlm.evaluation.scorers.vqa import vqa_accuracy


@pytest.mark.parametrize(("equal", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_each_of_ten_people_is_left_out_once(equal, score):
    people = ["cat"] * equal + ["dog"] * (10 - equal)
    assert vqa_accuracy("cat", people) == pytest.approx(score)


def test_people_who_agree_are_left_out_by_place_not_by_value():
    assert vqa_accuracy("cat", ["cat"] * 4) == 1.0  # by value nobody would be left


def test_the_official_scorer_normalises_only_where_people_disagree():
    assert score_answer("vqav2", "Two", ["2"] * 10, "official") == {"score": 0}
    assert score_answer("vqav2", "Two", ["2"] * 9 + ["3"], "official") == {"score": 1}
    assert score_answer("vqav2", "Two", ["2"] * 10) == {"score": 1}


def test_articles_number_words_and_lost_apostrophes_are_forgiven():
    assert normalise("The two dogs dont") == "2 dogs don't"
    assert normalise("1,000") == "1000"
    assert normalise("a-b") == "b"
    assert normalise("5. 1.5 .5") == "5 1.5 .5"
    assert normalise("5.", keep_stop_after_digit=True) == "5."
    assert normalise_evalai("Nike's, 1,000?") == "nike 's 1000"


def test_at_most_32_full_stops_are_removed():
    assert normalise("." * 40) == "." * 8


def test_words_that_are_no_contractions_stay():
    assert not {"its", "wed", "shed", "ill", "were", "id", "im", "ive"} & set(CONTRACTIONS)
    assert len(CONTRACTIONS) == 120 - 4 - 2  # without those with a capital and those that change nothing


def test_an_empty_answer_is_unparsable_and_scores_nothing():
    row = scored("vqav2", [" \n"], [{"answers": [""] * 10, "answer_type": "other"}])[0]
    assert (row.unparsable, row.score, row.parsed) == (True, 0.0, None)
    assert not scored("vqav2", ["wrong"], [["right"] * 10])[0].unparsable


def test_constants_score_what_people_said():
    gold = [{"answers": ["yes"] * 10}, {"answers": ["yes"] * 3 + ["no"] * 7}, {"answers": ["blue"] * 10}]
    said = scorer("vqav2").constants(gold)
    scores = {name: figures("vqav2", scored("vqav2", answers, gold))["accuracy"] for name, answers in said.items()}
    assert scores == pytest.approx(
        {"always yes": 1.9 / 3, "always no": 1 / 3, "most frequent answer": 1.9 / 3, "empty": 0}
    )


@pytest.mark.parametrize("reference", [None, "yes", [], {"answer": "yes"}, {"answers": "yes"}])
def test_gold_data_without_answers_is_refused(reference):
    with pytest.raises(InputError, match="has no list of answers"):
        score_answer("textvqa", "yes", reference)


def test_the_llava_variant_takes_ten_answers_and_no_other_number():
    with pytest.raises(InputError, match="9 people's answers"):
        score_answer("textvqa", "yes", ["yes"] * 9, "llava")
