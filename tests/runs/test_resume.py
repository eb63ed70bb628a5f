"""A run that is killed, whenever that is, ends as one that nothing disturbed: to the last bit."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.prepared import ROOT
from tests.runs.commands import assert_same_weights, command, environment, rows, status, train
from tests.runs.test_damage import flip
from vlm.phases.sft import SFT
from vlm.training import callbacks

# Four micro-batches a step and four epochs, saved at other steps than logged and validated.
WORDS = ["phase.max_steps=60", "phase.log_every=1", "phase.save_every=7", "phase.validate_every=20"]
WORDS += ["hardware.micro_batch=4", "phase.global_batch=16", "llm.attention=dot"]


def told(folder: Path) -> list[dict]:
    """Rows of metrics without what depends on the clock."""
    return [{k: v for k, v in row.items() if not k.startswith(("perf", "seconds"))} for row in rows(folder)]


def kill_at(data: Path, runs: Path, step: int, *words: str) -> None:
    """The whole command, killed as soon as it has logged a step; between two steps' rows is any moment of a step."""
    process = subprocess.Popen(
        command(*words),
        cwd=ROOT,
        env=environment(data, runs),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    while process.poll() is None:
        files = list(runs.glob("purevlm/*/metrics.jsonl"))
        lines = [json.loads(line) for line in files[0].read_text().splitlines() if line.endswith("}")] if files else []
        if lines and lines[-1]["step"] >= step:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    _, messages = process.communicate(timeout=60)
    assert process.returncode in (-9, 0), messages


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> Path:
    return train(data, tmp_path_factory.mktemp("undisturbed"), *WORDS)


def test_killed_three_times_in_the_middle_of_accumulations_and_finished_with_data_workers(data, undisturbed, tmp_path):
    for step in (3, 17, 38):
        kill_at(data, tmp_path, step, *WORDS)
    (folder,) = (tmp_path / "purevlm").iterdir()
    moved = train(data, tmp_path, *WORDS, "hardware.workers=2", f"resume={folder}")
    assert_same_weights(moved, undisturbed)
    first = min(row["step"] for row in told(moved))
    assert told(moved) == [row for row in told(undisturbed) if row["step"] >= first]
    assert_same_weights(train(data, tmp_path, *WORDS), undisturbed)
    assert told(folder) == told(undisturbed)
    assert status(folder)["best"] == status(undisturbed)["best"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_ten_moments(data, undisturbed, tmp_path, workers):
    words = [*WORDS, f"hardware.workers={workers}"]
    for step in (1, 6, 7, 13, 14, 19, 20, 27, 41, 59):
        kill_at(data, tmp_path, step, *words)
    folder = train(data, tmp_path, *words)
    assert_same_weights(folder, undisturbed)
    assert told(folder) == told(undisturbed)


def test_a_stop_before_a_validation_makes_it_up_first(data, undisturbed, tmp_path, monkeypatch):
    """The stop is asked for in the step whose validation is due: that validation may be longer than the grace."""
    begin = callbacks.Saver.on_train_batch_start

    def asked(self, trainer, phase, batch, batch_idx):
        self._asked = phase.step == 19
        begin(self, trainer, phase, batch, batch_idx)

    monkeypatch.setattr(callbacks.Saver, "on_train_batch_start", asked)
    with pytest.raises(SystemExit):
        train(data, tmp_path, *WORDS)
    (folder,) = (tmp_path / "purevlm").iterdir()
    assert status(folder)["step"] == 20
    assert not [row for row in rows(folder) if "val/loss" in row]
    monkeypatch.undo()
    train(data, tmp_path, *WORDS)
    assert told(folder) == told(undisturbed)


@pytest.mark.parametrize("last", [50, 60], ids=["with a validation of its own", "with the one that is due"])
def test_a_run_that_ends_between_its_last_rows_writes_each_of_them_once(data, tmp_path, monkeypatch, last):
    """After the last step: a validation, a test, a model. Killed before the end of all that."""
    words = [*WORDS, f"phase.max_steps={last}"]
    whole = train(data, tmp_path / "whole", *words)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("vlm.job.write_samples", killed)
    with pytest.raises(SystemExit):
        train(data, tmp_path / "killed", *words)
    monkeypatch.undo()
    folder = train(data, tmp_path / "killed", *words)
    assert told(folder) == told(whole)
    assert sum("val/loss" in row for row in rows(folder)) == 3
    assert sum("test/exact_match" in row for row in rows(folder)) == 1


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_a_validation_that_is_made_up_for_has_its_exit_code(data, undisturbed, tmp_path, monkeypatch, sent):
    begin, step = callbacks.Saver.on_train_batch_start, SFT.validation_step

    def asked(self, trainer, phase, batch, batch_idx):
        self._asked = phase.step == 19
        begin(self, trainer, phase, batch, batch_idx)

    def struck(self, loaded, batch_idx):
        os.kill(os.getpid(), sent)
        step(self, loaded, batch_idx)

    monkeypatch.setattr(callbacks.Saver, "on_train_batch_start", asked)
    with pytest.raises(SystemExit):
        train(data, tmp_path, *WORDS)
    monkeypatch.setattr(SFT, "validation_step", struck)
    with pytest.raises(SystemExit) as stopped:
        train(data, tmp_path, *WORDS)
    assert stopped.value.code == 75
    monkeypatch.undo()
    folder = train(data, tmp_path, *WORDS)
    assert told(folder) == told(undisturbed)


def test_skipped_rows_are_replaced_told_once_and_resumed(data, tmp_path):
    """Damaged pictures in the shard: the same rows are skipped, in the same places, with and without a kill."""
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    for row in (5, 50, 150):
        flip(copy, "train", row)
    words = [*WORDS, "phase.max_steps=20", "data.skip_budget=1.0"]
    whole = train(copy, tmp_path / "whole", *words)
    kill_at(copy, tmp_path / "killed", 9, *words)
    folder = train(copy, tmp_path / "killed", *words)
    assert_same_weights(folder, whole)
    assert told(folder) == told(whole)
    skipped = [(run / "skipped.jsonl").read_text().splitlines() for run in (whole, folder)]
    assert skipped[0] == skipped[1] != []
    assert {json.loads(line)["row"] for line in skipped[0]} <= {5, 50, 150}
    totals = status(folder)["data"]
    assert totals["reasons"] == {"media_undecodable": len(skipped[0])}
    assert totals["rows_read"] == 320 + len(skipped[0])


def test_a_spent_skip_budget_ends_the_run_with_its_reasons(data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    for row in range(0, 200, 20):
        flip(copy, "train", row)
    words = ["phase.max_steps=100", "phase.global_batch=16"]
    with pytest.raises(
        Exception, match=r"rows could not be used \(media_undecodable \d+\), more than data.skip_budget"
    ):
        train(copy, tmp_path, *words)
    (folder,) = (tmp_path / "purevlm").iterdir()
    assert status(folder)["state"] == "failed"
    assert status(folder)["data"]["rows_read"] >= 1000
    steps = [json.loads(line)["step"] for line in (folder / "skipped.jsonl").read_text().splitlines()]
    assert all(one <= other for one, other in itertools.pairwise(steps))


@pytest.mark.parametrize(("at", "kept"), [(4, 0), (17, 14)])
def test_a_second_request_leaves_the_step_that_was_kept_in_the_status(
    data, undisturbed, tmp_path, monkeypatch, at, kept
):
    """The checkpoint that the same command goes on from, not the step that was under way."""
    begin = callbacks.Saver.on_train_batch_start

    def struck(self, trainer, phase, batch, batch_idx):
        begin(self, trainer, phase, batch, batch_idx)
        if phase.step == at:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(callbacks.Saver, "on_train_batch_start", struck)
    with pytest.raises(SystemExit) as stopped:
        train(data, tmp_path, *WORDS)
    (folder,) = (tmp_path / "purevlm").iterdir()
    assert (stopped.value.code, status(folder)["state"], status(folder)["step"]) == (75, "stopped", kept)
    monkeypatch.undo()
    assert_same_weights(train(data, tmp_path, *WORDS), undisturbed)
