"""Packing, token budgets and recomputation are ways to compute: a run's numbers stay what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vlm
from tests import hf_folder, prepared
from vlm import run
from vlm.build import compose

PACKED = "hardware.pack=true"
WAYS = [
    [PACKED],
    [PACKED, "hardware.micro_batch=4"],
    [PACKED, "hardware.micro_tokens=300"],
    [PACKED, "hardware.recompute=true"],
    ["hardware.micro_batch=2", "hardware.recompute=true"],
]
COMMON = [
    "data=own_chats",
    "phase.global_batch=8",
    "phase.max_steps=6",
    "phase.log_every=1",
    "phase.validate_every=3",
    "phase.save_every=6",
    "phase.samples=2",
    "logging.wandb=disabled",
    "logging.progress=false",
    "hardware.threads=1",
    "hardware.precision=64-true",
]


def train(data: Path, runs: Path, *words: str) -> Path:
    return Path(run.train(compose([*COMMON, f"paths.data={data}", f"paths.runs={runs}", *words]))["run"])


def numbers(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k.startswith(("train/", "val/", "optim/grad"))} for row in lines]


def assert_same_numbers(one: Path, other: Path) -> None:
    assert len(numbers(one)) == len(numbers(other)) == 8
    for first, second in zip(numbers(one), numbers(other), strict=True):
        assert second == pytest.approx(first, rel=1e-7, abs=1e-9)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return prepared.chats(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def talk(tmp_path_factory) -> Path:
    return prepared.chats(tmp_path_factory.mktemp("talk"), pictures=False)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory) -> Path:
    return hf_folder.whole(tmp_path_factory.mktemp("folder"), max_position_embeddings=1024)


VISION = ["experiment=supravl_nano", "encoder=vit_nano", "llm.template.prompt=true", "llm.max_positions=256"]
VISION += ["llm.tokenizer.size=300", "llm.template.max_tokens=120", "data=own_chats"]


@pytest.fixture(scope="module")
def padded(pictures, tmp_path_factory) -> Path:
    return train(pictures, tmp_path_factory.mktemp("padded"), *VISION)


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_a_model_with_pictures_trains_alike(pictures, padded, tmp_path, way):
    assert_same_numbers(train(pictures, tmp_path, *VISION, *way), padded)


def test_a_language_model_from_a_local_folder_trains_on_text_alone_packed_or_not(talk, language_model, tmp_path):
    words = ["encoder=none", "connector=none", "llm=hf_causal", f"llm.path={language_model}", "phase.targets=all"]
    rows = train(talk, tmp_path / "rows", *words)
    packed = train(talk, tmp_path / "packed", *words, PACKED, "hardware.micro_tokens=400", "hardware.recompute=true")
    assert_same_numbers(packed, rows)
    model = vlm.load_model(packed)
    assert isinstance(vlm.generate(model, "what is number 3", max_new_tokens=4), str)
    before = load_file(language_model / "model.safetensors")
    after = load_file(packed / "model" / "llm.safetensors")
    moved = [name for name in before if not torch.equal(before[name].double(), after[name])]
    assert moved  # it began at the folder's weights and went on from there
    assert max((before[name].double() - after[name]).abs().max().item() for name in before) < 0.05
