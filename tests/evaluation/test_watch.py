"""Benchmarks as validation metrics: the same few questions for every run, scored as the evaluation scores them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.evaluation.asked import settings
from tests.evaluation.commands import POPE, entries, pope, run, words
from tests.models.speakers import speaker
from vlm.contracts.errors import InputError
from vlm.contracts.recipe import KeepSettings
from vlm.evaluation.prepared import Prepared
from vlm.evaluation.readers.pope import Pope
from vlm.evaluation.watch import Watch, Watched
from vlm.models.vlm import VLM
from vlm.training.weights import save_model

HOW = settings(name="pope", decoding="likelihood", candidates=["yes", "no"], max_new_tokens=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> VLM:
    return speaker("gpt2_nano", tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return pope(tmp_path_factory.mktemp("data"))


def watched(data: Path, limit: int, **changes) -> Watched:
    return Watched(Prepared(replace(HOW, **changes), Pope(str(data / "pope"))), limit)


def test_the_metric_is_the_headline_of_an_evaluation_with_the_same_limit(model, data, tmp_path):
    save_model(model, tmp_path / "model")
    asked = [*POPE, "change.pope.variants=[vlmevalkit]", "controls=[]", "decoding=likelihood", "limit=18"]
    assert run(*words(tmp_path / "model", data, tmp_path / "out", *asked))[0] == 0
    score = entries(tmp_path / "out")[0]["score"]
    assert 0.0 < score < 1.0
    assert Watch([watched(data, 18)])(model) == {"val/pope": score}


def test_every_run_is_asked_the_same_and_at_most_so_many(data):
    first, again = watched(data, 10), watched(data, 10)
    assert [one.id for one in first.questions] == [one.id for one in again.questions]
    assert (len(first.questions), len(watched(data, 1000).questions)) == (10, 72)


def test_several_benchmarks_give_a_metric_each_and_none_gives_none(model, data):
    both = Watch([watched(data, 6), watched(data, 6, name="pope_greedy", decoding="greedy")])(model)
    assert set(both) == {"val/pope", "val/pope_greedy"}
    assert Watch([])(model) == {}


def test_scoring_leaves_a_training_model_in_training(model, data):
    model.train()
    try:
        Watch([watched(data, 4)])(model)
        assert model.training
    finally:
        model.eval()


def test_files_that_are_not_there_are_refused_before_training(tmp_path):
    with pytest.raises(InputError, match=r"benchmark pope: .*coco_pope_random\.json is not there(.|\n)*draw them"):
        watched(tmp_path, 4)


def test_the_best_checkpoint_has_the_lowest_loss_or_the_highest_score():
    by_loss, by_score = KeepSettings(1, 1, None), KeepSettings(1, 1, None, "val/pope")
    first, second = {"val/loss": 1.0, "val/pope": 0.5}, {"val/loss": 2.0, "val/pope": 0.75}
    assert by_loss.rank(first) < by_loss.rank(second)
    assert by_score.rank(second) < by_score.rank(first)
    assert by_score.rank({"val/loss": 1.0}) != by_score.rank({"val/loss": 1.0})  # not a number: never the best
