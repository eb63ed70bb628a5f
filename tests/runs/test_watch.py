"""A benchmark at a run's validations: written down, and what the best checkpoint is chosen by."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.command import tell
from tests.evaluation import commands as evaluation
from tests.runs.commands import EXPERIMENT, assert_same_weights, rows, status, train
from vlm import run
from vlm.build import compose
from vlm.contracts.errors import ConfigError, InputError
from vlm.contracts.recipe import KeepSettings
from vlm.evaluation.watch import Watched
from vlm.training import checkpoint

DIGITS = [
    "+benchmarks.digit_names.limit=20",
    "+benchmarks.digit_names.change={reader: {expected: null}}",
    "phase.keep.by=val/digit_names",
]
WORDS = ["phase.max_steps=60", "phase.validate_every=20", "phase.save_every=20", "phase.keep.last=1", *DIGITS]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    return train(data, tmp_path_factory.mktemp("watched"), *WORDS)


def scores(folder: Path) -> dict[int, float]:
    return {row["step"]: row["val/digit_names"] for row in rows(folder) if "val/digit_names" in row}


def test_every_validation_writes_the_score_beside_its_loss(whole):
    assert list(scores(whole)) == [20, 40, 60]
    assert all(score * 20 == pytest.approx(round(score * 20)) for score in scores(whole).values())
    assert status(whole)["best"]["value"] == max(scores(whole).values())
    assert all("val/loss" in row for row in rows(whole) if "val/digit_names" in row)


def test_the_best_checkpoint_is_the_one_with_the_highest_score_whatever_its_loss(data, tmp_path, monkeypatch):
    told = iter([0.4, 0.9, 0.1])
    monkeypatch.setattr(Watched, "score", lambda self, model: next(told))
    folder = train(data, tmp_path, *WORDS)
    assert scores(folder) == {20: 0.4, 40: 0.9, 60: 0.1}
    losses = {row["step"]: row["val/loss"] for row in rows(folder) if "val/loss" in row}
    assert losses[40] > losses[60]
    assert status(folder)["best"] == {"metric": "val/digit_names", "value": 0.9, "step": 40}
    assert [checkpoint.step_of(path) for path in checkpoint.all_of(folder / "checkpoints")] == [40, 60]


def test_a_watched_run_trains_as_one_that_nobody_watches(data, whole, tmp_path):
    plain = train(data, tmp_path, *[word for word in WORDS if word not in DIGITS])
    assert_same_weights(plain, whole)


def test_a_stopped_run_goes_on_and_ends_as_the_undisturbed_one(data, whole, tmp_path, stops_at_20):
    with pytest.raises(SystemExit):
        train(data, tmp_path, *WORDS)
    folder = train(data, tmp_path, *WORDS)
    assert_same_weights(folder, whole)
    assert scores(folder) == scores(whole)
    assert status(folder)["best"] == status(whole)["best"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["phase.keep.by=val/pope"], r"phase\.keep\.by: val/pope is no metric of this run's validations; .*\+benchmarks\.pope\.limit=200"),
        (["phase.keep.by=loss"], r"phase\.keep\.by: loss is no metric"),
        (["phase.keep.by=val/retrieval_r1"], r"val/retrieval_r1 is no metric of this run's validations; give val/loss, or name"),
        (["+benchmarks.digit_names.limit=20"], r"reader\.expected\.questions=40"),
        (["+benchmarks.digit_name.limit=20"], "did you mean 'digit_names'"),
        (["+benchmarks.pope.limit=20"], r"coco_pope_random\.json is not there"),
        ([*DIGITS, "data.validate=null"], r"benchmarks: they are scored at validations|data\.validate"),
        (["+benchmarks.digit_names.limti=20"], "limti"),
    ],
)  # fmt: skip
def test_what_cannot_be_watched_is_refused_before_there_is_a_run(data, tmp_path, given, message):
    with pytest.raises((InputError, ConfigError), match=message):
        run.train(compose([*EXPERIMENT, f"paths.data={data}", f"paths.runs={tmp_path}", "phase.max_steps=1", *given]))
    assert not list(tmp_path.glob("purevlm/*/model"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["+benchmarks.pop.limit=5"], "did you mean 'pope'"),
        (["phase.keep.by=val/pope"], "val/pope is no metric of this run's validations"),
        (["+benchmarks.pope.limit=5", "+benchmarks.pope.change={promt: x}"], "did you mean 'prompt'"),
    ],
)
def test_a_finished_run_is_asked_for_nothing_that_there_is_not(data, whole, capsys, given, message):
    words = [word for word in WORDS if not word.startswith("phase.keep.by=val/digit") or given[0][0] == "+"]
    with pytest.raises((InputError, ConfigError), match=message) as refused:
        train(data, whole.parents[1], *words, *given)
    assert tell(refused.value) == 2
    assert capsys.readouterr().out == ""


def test_a_finished_run_says_that_it_never_watched_what_is_named_only_now(data, whole, capsys, caplog):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    with caplog.at_level(logging.WARNING):
        again = train(data, whole.parents[1], *WORDS, "+benchmarks.pope.limit=5")
    assert (again, capsys.readouterr().out.strip()) == (whole, str(whole))
    assert "it finished without val/pope; experiments.evaluate scores a finished model" in caplog.text
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_ranks_by_another_metric_choose_no_checkpoint(tmp_path):
    """A run that went on with another keep.by would else prefer losses to scores, or scores to losses."""
    state = checkpoint.State(1, {"a": torch.ones(1)}, {}, {}, {}, {}, "frozen", "recipe", False)

    def kept(by: str, step: int, value: float) -> list[int]:
        writer = checkpoint.Checkpoints(tmp_path, KeepSettings(1, 1, None, by))
        writer.write(replace(state, step=step), value)
        writer.wait()
        writer.close()
        return [checkpoint.step_of(path) for path in checkpoint.all_of(tmp_path)]

    assert kept("val/loss", 1, 0.1) == [1]
    assert kept("val/loss", 2, 0.5) == [1, 2]  # the newest, and the best
    assert kept("val/digit_names", 3, 9.0) == [3]
    assert kept("val/digit_names", 4, 9.5) == [3, 4]


def test_a_finished_run_is_evaluated_into_its_own_folder(data, whole):
    words = ["benchmarks=[digit_names]", "change.digit_names.reader.expected=null", *evaluation.QUIET]
    code, said, told = evaluation.run(f"model={whole}", f"paths.data={data}", *words)
    assert code == 0, told
    (entry,) = evaluation.entries(whole / "evaluation")
    assert (entry["n"], entry["settings"]["model"]) == (40, str(whole))
    assert set(entry["baselines"]) >= {"most frequent answer", "empty", "the model with grey pictures"}
    assert entry["details"]["trained_on"]["pictures"] == 40
    assert entry["details"]["trained_on"]["trained_on"] == 0
    assert str(whole / "evaluation" / "results.html") in said
    assert json.loads((whole / "evaluation" / "results.json").read_text()) == [entry]
