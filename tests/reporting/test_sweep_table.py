"""The table at the end of a multirun, over a small task in the place of training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from experiments.sweep import run_folder, show, sweep_id
from vlm.training.folder import run_id

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
seed: 0
hydra:
  output_subdir: null
  run: {dir: .}
  sweep: {dir: sweeps, subdir: .}
  callbacks: {table: {_target_: experiments.sweep.SweepTable}}
"""
TASK = """
import os
import sys

import hydra

def task(config):
    print("group", os.environ.get("VLM_SWEEP"))
    if config.seed == 2:
        raise ValueError("seed two is unlucky")
    if config.seed == 4:
        sys.exit(75)
    return {"run": f"runs/x/{config.seed}", "state": "finished", "metric": config.seed / 8}

hydra.main(config_path=".", config_name="train", version_base="1.3")(task)()
"""


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "train.yaml").write_text(CONFIG)
    (tmp_path / "task.py").write_text(TASK)

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if key != "VLM_SWEEP"}
        return subprocess.run(
            [sys.executable, "task.py", *words],
            cwd=tmp_path,
            env=clean | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"} | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.mark.parametrize(
    "launcher", [(), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")], ids=["basic", "joblib"]
)
def test_every_job_has_a_row_also_one_that_failed(sweep, launcher):
    done = sweep("-m", "seed=1,2,3", *launcher)
    assert done.returncode == 1
    table = done.stderr[done.stderr.index("Sweep of 3 jobs") :]
    for words in ("runs/x/1", "seed=1", "0.125", "failed: seed two is unlucky", "runs/x/3", "0.375"):
        assert words in table
    assert "Sweep of" not in done.stdout


def test_a_job_that_was_interrupted_is_in_the_table(sweep):
    done = sweep("-m", "seed=1,4")
    assert done.returncode == 75
    table = done.stderr[done.stderr.index("Sweep of 2 jobs") :]
    assert "runs/x/1" in table
    assert "interrupted" in table


def test_the_same_command_is_in_the_same_group_whatever_the_order():
    assert sweep_id(["seed=1,2", "++a=b"]) == sweep_id(["a=b", "seed=1,2"])
    assert sweep_id(["seed=1,2"]) != sweep_id(["seed=1,3"])


def test_jobs_see_the_group_of_their_sweep_or_the_one_that_was_chosen(sweep):
    assert sweep("-m", "seed=1,3").stdout.count(f"group {sweep_id(['seed=1,3'])}") == 2
    assert sweep("-m", "seed=1,3", VLM_SWEEP="mine").stdout.count("group mine") == 2


def test_a_single_run_has_no_group_and_no_table(sweep):
    done = sweep("seed=1")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "group None", "")


def test_a_long_error_is_cut_and_told_once(capsys):
    error = "a reason of many words " * 20
    show([{"overrides": [f"seed={seed}"], "state": "failed", "error": error} for seed in (1, 2)])
    table = " ".join(capsys.readouterr().err.split())
    assert table.count("…") == 1
    assert "failed: as above" in table


def test_a_job_that_failed_shows_the_folder_that_it_left(tmp_path):
    config = OmegaConf.create(
        {"name": "x", "seed": 1, "paths": {"runs": str(tmp_path)}, "hydra": {"job": "${nowhere}"}}
    )
    assert run_folder(config) == ""
    plain = {"name": "x", "seed": 1}
    (tmp_path / "x" / run_id(plain)).mkdir(parents=True)
    assert run_folder(config) == str(tmp_path / "x" / run_id(plain))
