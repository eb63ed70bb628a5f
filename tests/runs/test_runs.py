"""Run folders as a user meets them: started, stopped, killed, started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.prepared import ROOT

EXPERIMENT = [
    "experiment=purevlm", "data.train.mnist.rows=[0,200]", "data.validate.mnist.rows=[200,240]", "phase.global_batch=8",
    "phase.log_every=5", "phase.save_every=20", "phase.validate_every=50", "phase.samples=2", "hardware.threads=1", "logging.wandb=disabled",
]


def environment(data: Path, runs: Path) -> dict[str, str]:
    return os.environ | {"VLM_DATA": str(data), "VLM_RUNS": str(runs)}


def train(data: Path, runs: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "experiments.train", *EXPERIMENT, *words], cwd=ROOT, env=environment(data, runs),
        capture_output=True, text=True, timeout=180,
    )


def started(data: Path, runs: Path, *words: str) -> tuple[subprocess.Popen[str], Path]:
    """A run that has saved its first checkpoint and goes on for a long time."""
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *EXPERIMENT, *words], cwd=ROOT, env=environment(data, runs),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    for _ in range(600):
        found = list(runs.glob("purevlm/*/checkpoints/step-*.ckpt"))
        if found:
            return process, found[0].parents[1]
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.kill()
    raise AssertionError("no checkpoint in a minute")


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for file in sorted((folder / "model").glob("*.safetensors")) for k, v in load_file(file).items()}


def test_a_run_leaves_all_that_is_needed_to_know_use_and_repeat_it(data, tmp_path):
    done = train(data, tmp_path, "phase.max_steps=30")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip().splitlines()[-1])
    assert folder.parent == tmp_path / "purevlm"
    assert len(folder.name) == 12
    for name in ("config.yaml", "command.txt", "versions.json", "data.json", "status.json", "metrics.jsonl"):
        assert (folder / name).stat().st_size > 0, name
    last = status(folder)
    assert (last["state"], last["step"]) == ("finished", 30)
    assert last["metrics"]["test/exact_match_n"] == 40
    train_rows = [row for row in rows(folder) if "train/loss" in row]
    assert [row["step"] for row in train_rows] == [5, 10, 15, 20, 25, 30]
    assert train_rows[-1]["samples"] == 240
    told = {"perf/samples_per_s", "perf/tokens_per_s", "perf/data_wait", "perf/memory_gb", "optim/grad_norm", "optim/rate/llm"}
    assert told <= train_rows[-1].keys()
    assert len((folder / "samples" / "samples.jsonl").read_text().splitlines()) == 2

    again = train(data, tmp_path, "phase.max_steps=30")
    assert again.returncode == 0
    assert again.stdout == done.stdout
    assert "is finished; nothing to do" in again.stderr

    asked = subprocess.run(
        [sys.executable, "-m", "experiments.generate", f"model={folder}", f"image={folder}/samples/0000.png"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.endswith("\n")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_or_killed_goes_on_to_the_same_weights(data, tmp_path, sent):
    words = ["phase.max_steps=400", "phase.validate_every=400"]
    process, folder = started(data, tmp_path / "cut", *words)
    process.send_signal(sent)
    _, messages = process.communicate(timeout=60)
    if sent == signal.SIGKILL:
        assert process.returncode == -9
    else:
        assert process.returncode == 75, messages
        assert status(folder)["state"] == "stopped"
        assert "the same command goes on" in messages
    assert status(folder)["step"] < 400 or sent == signal.SIGKILL
    done = train(data, tmp_path / "cut", *words)
    assert done.returncode == 0, done.stderr
    assert "going on from" in done.stderr
    whole = train(data, tmp_path / "whole", *words)
    uncut = Path(whole.stdout.strip())
    assert uncut.name == folder.name
    assert all(torch.equal(a, b) for a, b in zip(weights(folder).values(), weights(uncut).values(), strict=True))
    steps = [row["step"] for row in rows(folder) if "train/loss" in row]
    assert steps == sorted(set(steps))


def test_a_second_process_on_one_run_folder_is_refused(data, tmp_path):
    process, folder = started(data, tmp_path, "phase.max_steps=100000")
    try:
        second = train(data, tmp_path, "phase.max_steps=100000")
        assert second.returncode == 2
        assert f"{folder}: another process works in this run folder" in second.stderr
    finally:
        process.kill()
        process.communicate()


def test_data_that_is_not_there_is_refused_with_the_command_that_gets_it(tmp_path):
    refused = train(tmp_path / "nothing", tmp_path / "runs", "phase.max_steps=2")
    assert refused.returncode == 2
    assert "make data SOURCE=mnist" in refused.stderr
    assert not (tmp_path / "runs").exists()


def test_a_sweep_goes_on_after_a_failed_job_and_starts_only_what_is_missing(data, tmp_path):
    words = ["-m", "phase.max_steps=6", "phase.trainable.llm=1.0e-3,1.0e+30", "seed=0,1"]
    swept = train(data, tmp_path, *words)
    assert swept.returncode == 1
    states = sorted(status(folder)["state"] for folder in (tmp_path / "purevlm").iterdir())
    assert states == ["failed", "failed", "finished", "finished"]
    assert "not both finite" in swept.stderr
    for word in ("failed", "finished", "val/loss"):
        assert word in swept.stderr
    again = train(data, tmp_path, *words)
    assert again.returncode == 1
    assert again.stderr.count("is finished; nothing to do") == 2


def test_new_runs_start_from_the_parts_of_old_ones(data, tmp_path):
    first = Path(train(data, tmp_path, "phase.max_steps=4").stdout.strip())
    words = ["phase.max_steps=1", "phase.trainable.encoder=1.0e-30", "phase.trainable.connector=1.0e-30", "phase.trainable.llm=1.0e-30"]
    whole = Path(train(data, tmp_path, *words, f"init_from={first}").stdout.strip())
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(first).values(), strict=True))
    part = Path(train(data, tmp_path, *words, f"+weights.encoder={first}").stdout.strip())
    assert part.name != whole.name
    same = {key for key, value in weights(part).items() if torch.equal(value, weights(first)[key])}
    assert {"bae1_l", "bae_deg3_2"} <= same
    assert "wte" not in same


def test_resume_takes_a_run_to_other_hardware(data, tmp_path):
    process, folder = started(data, tmp_path, "phase.max_steps=200")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    moved = train(data, tmp_path, "phase.max_steps=200", "hardware.workers=1", f"resume={folder}")
    assert moved.returncode == 0, moved.stderr
    other = Path(moved.stdout.strip())
    assert other != folder
    whole = Path(train(data, tmp_path / "whole", "phase.max_steps=200").stdout.strip())
    assert all(torch.equal(a, b) for a, b in zip(weights(other).values(), weights(whole).values(), strict=True))
