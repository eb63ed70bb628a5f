"""Short runs of purevlm on invented digits, as commands and in this process, and what they leave."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from vlm import run
from vlm.build import compose

EXPERIMENT = [
    "experiment=purevlm",
    "data.train.mnist.rows=[0,200]",
    "data.validate.mnist.rows=[200,240]",
    "phase.global_batch=8",
    "phase.log_every=5",
    "phase.save_every=20",
    "phase.validate_every=50",
    "phase.samples=2",
    "hardware.threads=1",
    "logging.wandb=disabled",
    "logging.progress=false",
]


def environment(data: Path, runs: Path) -> dict[str, str]:
    return os.environ | {"VLM_DATA": str(data), "VLM_RUNS": str(runs)}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "experiments.train", *EXPERIMENT, *words]


def train(data: Path, runs: Path, *words: str) -> Path:
    """A run in this process. Returns: its folder."""
    return Path(run.train(compose([*EXPERIMENT, f"paths.data={data}", f"paths.runs={runs}", *words]))["run"])


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = {k: v for file in sorted((folder / "model").glob("*.safetensors")) for k, v in load_file(file).items()}
    assert found
    return found


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
