from __future__ import annotations

import json
import math

import pytest

from vlm.contracts.errors import InputError
from vlm.reporting.runs import find_runs


def only(folders):
    (run,) = find_runs(folders.root)
    return run


def test_a_finished_run_is_read_without_fault(folders):
    folders.run(samples=[("two", "two")])
    run = only(folders)
    assert run.label == "purevlm/0123456789ab"
    assert (run.system, run.seed, run.status.state, run.faults) == ("purevlm", 0, "finished", ())
    assert run.metric("val/loss") == 0.5
    assert run.samples[0].answer == "two"


def test_a_run_folder_itself_can_be_given(folders):
    folder = folders.run()
    assert [run.label for run in find_runs(folder)] == ["0123456789ab"]


def test_folders_inside_a_run_and_hidden_folders_are_not_searched(folders):
    inside = folders.run() / "wandb" / "files"
    inside.mkdir(parents=True)
    folders.write(inside / "config.yaml", "a: 1")
    hidden = folders.root / ".sweeps" / "x"
    hidden.mkdir(parents=True)
    folders.write(hidden / "status.json", "{}")
    assert len(find_runs(folders.root)) == 1


@pytest.mark.parametrize("content", ['{"state": "fini', "[]", '{"state": "done"}', '{"step": 3}', "\x00\xff"])
def test_a_broken_status_is_a_fault_of_its_run(folders, content):
    folders.write(folders.run() / "status.json", content)
    run = only(folders)
    assert run.status.state == "unreadable"
    assert run.faults[0].startswith("status.json: cannot be read")


def test_a_folder_with_nothing_but_a_command_names_all_that_is_missing(folders):
    folder = folders.root / "x" / "y"
    folder.mkdir(parents=True)
    folders.write(folder / "command.txt", "python -m experiments.train")
    run = only(folders)
    assert run.status.state == "unreadable"
    assert run.system == "x"
    assert [fault.partition(":")[0] for fault in run.faults] == [
        "status.json", "config.yaml", "versions.json", "data.json", "metrics.jsonl",
    ]  # fmt: skip


def test_half_a_line_at_the_end_of_the_log_is_left_out(folders):
    log = folders.run() / "metrics.jsonl"
    folders.write(log, log.read_text() + '{"step": 150, "train/lo')
    run = only(folders)
    assert list(run.series("train/loss")[0]) == [10, 50, 100]
    assert run.faults == ("metrics.jsonl: 1 line cannot be read",)


def test_values_that_are_no_number_are_no_points_of_a_curve(folders):
    rows = [{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": math.nan}, {"step": 3, "train/loss": None}]
    folders.run(rows=[*rows, {"train/loss": 9.0}, {"step": "four", "train/loss": 9.0}])
    assert list(only(folders).series("train/loss")[1]) == [2.0]


def test_the_later_of_two_rows_of_a_step_counts(folders):
    folders.run(rows=[{"step": 1, "val/loss": 2.0}, {"step": 1, "val/loss": 1.0}])
    assert list(only(folders).series("val/loss")[1]) == [1.0]


def test_a_metric_that_the_status_does_not_know_is_taken_from_the_log(folders):
    folders.run(status={"metrics": {"val/loss": None}}, rows=[{"step": 1, "val/loss": 2.0}])
    assert only(folders).metric("val/loss") == 2.0
    assert only(folders).metric("test/exact_match") is None


def test_a_sample_may_have_no_picture(folders):
    folder = folders.run(samples=[])
    row = {"key": "k", "image": None, "answer": "a", "reference": "b", "prompt": ""}
    folders.write(folder / "samples" / "samples.jsonl", json.dumps(row))
    assert only(folders).samples[0].image is None


def test_a_missing_or_empty_folder_is_refused(folders):
    with pytest.raises(InputError, match="is no folder"):
        find_runs(folders.root)
    folders.root.mkdir()
    with pytest.raises(InputError, match="holds no run folder"):
        find_runs(folders.root)
