"""What a run's data ask for is told when training starts, written down, and refused where the policy says so."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runs.commands import EXPERIMENT, train
from vlm.contracts.errors import InputError
from vlm.data.licences import LicenceRefused


def test_a_run_tells_and_keeps_the_licence_flags_of_its_sets(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = train(data, tmp_path, "phase.max_steps=1", "data.licence_policy=no_noncommercial")
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("licences:")]
    assert told == ["licences: share_alike (what is made from it must carry the same licence) by mnist: CC-BY-SA-3.0"]
    record = json.loads((folder / "data.json").read_text())
    assert record["license_flags"] == {"share_alike": {"mnist": ["CC-BY-SA-3.0"]}}
    assert train(data, tmp_path, "phase.max_steps=1") == folder, "a policy that allows a run is no part of it"


def test_training_is_refused_by_the_policy_before_anything_is_made(
    data: Path, tmp_path: Path, run_command: Callable[..., Any]
) -> None:
    words = [*EXPERIMENT, f"paths.data={data}", "data.licence_policy=permissive_only"]
    done = run_command("experiments.train", *words)
    assert done.returncode == 2
    for words in ("data.licence_policy: permissive_only", "mnist: CC-BY-SA-3.0 is share_alike", "data.train.SET=null"):
        assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_policy_refuses_a_run_that_is_finished_already(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path, "phase.max_steps=1")
    with pytest.raises(LicenceRefused, match="permissive_only does not allow what this run would read"):
        train(data, tmp_path, "phase.max_steps=1", "data.licence_policy=permissive_only")


def test_a_split_that_is_for_scoring_is_not_trained_on_by_mistake(data: Path, tmp_path: Path) -> None:
    scored = ["phase.max_steps=1", "data.train.mnist.split=test", "data.train.mnist.rows=null"]
    with pytest.raises(
        InputError, match=r"data.train.mnist.split: test is for scoring alone.*data.allow_eval_split=true"
    ):
        train(data, tmp_path, *scored)
    assert train(data, tmp_path, *scored, "data.allow_eval_split=true").is_dir()
