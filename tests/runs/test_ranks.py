"""Two processes for one run: the numbers of one, no deadlock, and a message that names the rank that broke."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vlm.build
import vlm.run
from tests import hf_folder, prepared
from tests.evaluation import commands as evaluation
from tests.prepared import ROOT
from tests.runs.commands import rows, status
from vlm.launch import _free_port

# Questions about no, one or several pictures, so that ranks hold very different batches.
MIXED = [
    "experiment=supravl_nano",
    "data=own_chats",
    "encoder=vit_nano",
    "llm.template.prompt=true",
    "llm.max_positions=256",
    "llm.tokenizer.size=300",
    "llm.template.max_tokens=120",
    "phase.global_batch=8",
    "phase.log_every=1",
    "phase.save_every=10",
    "phase.validate_every=10",
    "phase.max_steps=20",
    "phase.samples=2",
    "logging.wandb=disabled",
    "logging.progress=false",
    "hardware.threads=1",
]
PROFILES = ("cpu_ddp2", "cpu_fsdp2")


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared.chats(tmp_path_factory.mktemp("chats"))


def environment(data: Path, runs: Path, **more: str) -> dict[str, str]:
    return os.environ | {"VLM_DATA": str(data), "VLM_RUNS": str(runs), "PYTHONPATH": str(ROOT)} | more


def train(data: Path, runs: Path, *words: str) -> tuple[Path, str]:
    return run(data, runs, *MIXED, *words)


def run(data: Path, runs: Path, *words: str) -> tuple[Path, str]:
    """The whole command. Returns: the run folder and what was said."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", *words],
        cwd=ROOT,
        env=environment(data, runs),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip() or runs), done.stderr


def losses(folder: Path) -> dict[int, float]:
    return {row["step"]: row["train/loss"] for row in rows(folder) if "train/loss" in row}


def gradients(data: Path, root: Path, world: int, *words: str) -> tuple[dict[str, torch.Tensor], Path]:
    """Of the first step, from a run of `world` processes started as a launcher would. Returns: also its folder."""
    port = str(_free_port())
    shape = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0"}
    root.mkdir(exist_ok=True)
    file = root / "gradients.pt"
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.runs.gradients", str(file), *MIXED, *words],
            cwd=ROOT,
            env=environment(data, root, **({"RANK": str(n), "LOCAL_RANK": str(n), **shape} if world > 1 else {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(world)
    ]
    said = [process.communicate(timeout=200) for process in ranks]
    assert [process.returncode for process in ranks] == [0] * world, said
    return torch.load(file), Path(said[0][0].strip())


@pytest.fixture(scope="module")
def alone(chats, tmp_path_factory) -> tuple[dict[str, torch.Tensor], Path]:
    """One process, four micro-batches a step, packed; 20 steps."""
    return gradients(chats, tmp_path_factory.mktemp("alone"), 1, "hardware.micro_batch=2", "hardware.pack=true")


@pytest.mark.parametrize("profile", PROFILES)
def test_two_processes_take_the_steps_of_one_and_their_model_answers_alike(chats, alone, tmp_path, profile):
    found, folder = gradients(chats, tmp_path, 2, f"hardware={profile}", "hardware.micro_batch=2", "hardware.pack=true")
    wanted, single = alone
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert losses(folder) == pytest.approx(losses(single), abs=1e-3)
    first, second = ([row for row in rows(run) if "val/loss" in row] for run in (single, folder))
    assert [row["val/loss"] for row in second] == pytest.approx([row["val/loss"] for row in first], abs=1e-3)
    assert [row["val/samples"] for row in second] == [row["val/samples"] for row in first]
    for name in ("encoder", "connector", "llm"):
        one, two = (load_file(run / "model" / f"{name}.safetensors") for run in (single, folder))
        for key, tensor in one.items():
            torch.testing.assert_close(two[key], tensor, rtol=0, atol=1e-3)
    told = (folder / "samples" / "samples.jsonl").read_text().splitlines()
    model = vlm.load_model(folder)
    assert len(told) == 2
    assert vlm.parameter_report(model)["total"] == vlm.parameter_report(vlm.load_model(single))["total"]


FOVEAL = ["encoder=dinov2_small", "encoder.width=32", "encoder.layers=2", "encoder.heads=2", "encoder.mlp=64"]
FOVEAL += ["encoder.grid=4", "encoder.views.size=56", "connector=foveal", "connector.query_width=16", "fusion=foveated"]
IDLE = [  # what answers leave idle, and what the fusion's mode does
    (["encoder=keural_nano"], ("encoder.pool.", "encoder.saliency.")),
    pytest.param([*FOVEAL, "fusion.mode=coarse_fine"], ("encoder.mask",), marks=pytest.mark.slow),
    pytest.param(
        [*FOVEAL, "fusion.mode=coarse_only"],
        ("encoder.mask", "connector.first", "connector.steer."),
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("parts", "idle"), IDLE)
def test_parts_that_train_while_some_of_them_stands_idle_have_the_gradients_of_one_process(
    chats, tmp_path, parts, idle
):
    """A second step would wait for the gradients of all of them."""
    words = [*parts, "phase.trainable={encoder: 1.0e-4, connector: 1.0e-3, llm: 1.0e-3}"]
    words += ["phase.max_steps=2", "phase.samples=0", "data.validate.chat_jsonl=null", "hardware.micro_batch=2"]
    wanted, _ = gradients(chats, tmp_path / "one", 1, *words)
    found, _ = gradients(chats, tmp_path / "two", 2, *words, "hardware=cpu_ddp2")
    assert found.keys() == wanted.keys()
    assert any(name.startswith("encoder.blocks.") for name in found)
    assert not any(name.startswith(idle) for name in found)
    for name, gradient in wanted.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("profile", [PROFILES[0], pytest.param(PROFILES[1], marks=pytest.mark.slow)])
def test_resume_takes_a_run_from_one_process_to_two_and_back(chats, tmp_path, profile):
    half, _ = train(chats, tmp_path, "phase.max_steps=10", "phase.schedule.name=constant")
    words = ("phase.schedule.name=constant", "phase.max_steps=14")
    two, said = train(chats, tmp_path, *words, f"hardware={profile}", f"resume={half}")
    assert "going on from step 10" in said
    one, _ = train(chats, tmp_path, "phase.schedule.name=constant", "phase.max_steps=20", f"resume={two}")
    whole, _ = train(chats, tmp_path / "whole", "phase.schedule.name=constant")
    undisturbed = losses(whole)
    for folder, first in ((two, 11), (one, 15)):
        found = losses(folder)
        assert min(found) == first
        assert found == pytest.approx({step: undisturbed[step] for step in found}, abs=1e-3)
    assert rows(one)[-1]["samples"] == rows(whole)[-1]["samples"] == 160


@pytest.mark.slow
def test_damaged_rows_are_replaced_alike_on_one_rank_and_on_two(chats, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(chats, data)
    index = np.load(data / "chat_jsonl" / "train" / "index.npy")
    shard = data / "chat_jsonl" / "train" / "shard-000000.tar"
    content = bytearray(shard.read_bytes())
    for row in (row for row in range(0, len(index), 5) if index["media"][row]):
        content[int(index["offset"][row]) + int(index["json_off"][row]) + 1024 + 600] ^= 1
    shard.write_bytes(content)
    words = ["hardware.micro_batch=2", "data.skip_budget=1.0", "data.validate.chat_jsonl=null", "phase.max_steps=8"]
    one, _ = train(data, tmp_path / "one", *words)
    two, said = train(data, tmp_path / "two", *words, "hardware=cpu_ddp2")
    assert losses(two) == pytest.approx(losses(one), abs=1e-3)
    lost = [sorted((folder / "skipped.jsonl").read_text().splitlines()) for folder in (one, two)]
    assert lost[0] == lost[1] != []
    assert status(one)["data"] == status(two)["data"]
    assert "skipped chat_jsonl row" in said


@pytest.mark.slow
def test_a_language_model_with_a_shared_table_is_sharded_packed_and_recomputed_alike(tmp_path):
    """Tied embedding and head under FSDP2, token budgets that leave ranks different numbers of samples."""
    data = prepared.chats(tmp_path / "talk", pictures=False)
    folder = tmp_path / "folder"
    folder.mkdir()
    hf_folder.write_tokenizer(folder)
    hf_folder.write_model(folder, max_position_embeddings=1024, tie_word_embeddings=True)
    words = [
        "experiment=null",
        "data=own_chats",
        "encoder=none",
        "connector=none",
        "llm=hf_causal",
        f"llm.path={folder}",
    ]
    words += [word for word in MIXED if not word.startswith(("experiment=", "encoder=", "llm."))]
    one, _ = run(data, tmp_path / "one", *words)
    dense = ["hardware.pack=true", "hardware.micro_tokens=300", "hardware.recompute=true"]
    two, _ = run(data, tmp_path / "two", *words, "hardware=cpu_fsdp2", *dense)
    assert losses(two) == pytest.approx(losses(one), abs=1e-3)
    first, second = (load_file(found / "model" / "llm.safetensors") for found in (one, two))
    assert first.keys() == second.keys()


def start(data: Path, runs: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "experiments.train", *MIXED, "hardware=cpu_ddp2", "phase.max_steps=100000", *words]
    return subprocess.Popen(
        [*command, "hardware.timeout_s=6"],
        cwd=ROOT,
        env=environment(data, runs),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rank_of(parent: int, number: int) -> int:
    """The process number of a rank."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat, environ = (entry / "stat").read_text(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == parent and f"RANK={number}".encode() in environ.split(b"\0"):
            return int(entry.name)
    raise AssertionError(f"no rank {number}")


def ranks_of(parent: int) -> list[int]:
    return [child for child in children(parent) if "experiments.train" in command_of(child)]


def children(parent: int) -> list[int]:
    """Process numbers, grandchildren not included."""
    return [int(number) for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def command_of(number: int) -> str:
    return Path(f"/proc/{number}/cmdline").read_text().replace("\0", " ")


def wait_for_steps(runs: Path, process: subprocess.Popen[str], steps: int) -> Path:
    while True:
        assert process.poll() is None, process.communicate()
        for file in runs.glob("*/*/metrics.jsonl"):
            if len(file.read_text().splitlines()) >= steps:
                return file.parent
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (signal.SIGKILL, "rank 1 was killed by SIGKILL after step"),
        pytest.param(signal.SIGSTOP, "rank 1 (last finished step:", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_is_lost_or_stands_still_ends_the_run_and_is_named(chats, tmp_path, sent, message):
    process = start(chats, tmp_path)
    folder = wait_for_steps(tmp_path, process, 3)
    os.kill(rank_of(process.pid, 1), sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert message in said.splitlines()[-1]
    assert "the same command goes on from the last checkpoint" in said
    assert status(folder)["state"] == "failed"


def test_a_stop_on_request_reaches_every_rank_and_the_same_command_goes_on(chats, tmp_path):
    process = start(chats, tmp_path)
    folder = wait_for_steps(tmp_path, process, 3)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert status(folder)["state"] == "stopped"
    assert list((folder / "checkpoints").glob(f"step-{status(folder)['step']:08d}-*.ckpt"))
    again = start(chats, tmp_path)
    wait_for_steps(tmp_path, again, len(rows(folder)) + 2)
    again.send_signal(signal.SIGINT)
    _, said = again.communicate(timeout=60)
    assert again.returncode == 75, said
    assert "going on from step" in said


@pytest.mark.slow
def test_ranks_whose_parent_is_killed_save_and_end(chats, tmp_path):
    process = start(chats, tmp_path)
    deadline = time.monotonic() + 60
    while len(ranks := ranks_of(process.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()  # while they still load their libraries
    process.communicate(timeout=60)
    while any(Path(f"/proc/{rank}/stat").exists() for rank in ranks):
        assert time.monotonic() < deadline + 60, "they go on without a parent"
        time.sleep(0.2)
    (folder,) = (tmp_path / "supravl_nano").iterdir()
    assert status(folder)["state"] == "stopped"


@pytest.mark.slow
def test_a_data_worker_that_is_killed_under_one_rank_ends_the_run_and_names_it(chats, tmp_path):
    process = start(chats, tmp_path, "hardware.workers=1")
    wait_for_steps(tmp_path, process, 3)
    worker = next(rank for rank in children(rank_of(process.pid, 1)) if "spawn_main" in command_of(rank))
    os.kill(worker, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "rank 1: " in said
    assert "data worker broke off" in said
    assert "rank 1 failed after step" in said.splitlines()[-1]


def test_a_profile_and_its_launcher_must_agree(chats, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", *MIXED, "hardware=cpu_ddp2"],
        cwd=ROOT,
        env=environment(chats, tmp_path, RANK="0", WORLD_SIZE="3"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "make 2 processes, but 3 were launched" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_benchmark_at_validations_has_the_value_of_one_process(chats, tmp_path):
    """Each rank asks every question; its half of eleven would be another score."""
    shutil.copytree(chats, tmp_path / "data")
    evaluation.pope(tmp_path / "data")
    watched = [
        "+benchmarks.pope.limit=11",
        "phase.max_steps=4",
        "phase.validate_every=4",
        "phase.save_every=4",
        "phase.samples=0",
    ]
    watched += ["+benchmarks.pope.change={reader: {expected: null}, decoding: likelihood, prompt: '{question}'}"]
    two, _ = train(tmp_path / "data", tmp_path / "two", *watched, "hardware=cpu_ddp2")
    places = [f"paths.data={tmp_path / 'data'}", f"paths.runs={tmp_path / 'one'}"]
    one = Path(vlm.run.train(vlm.build.compose([*MIXED, *watched, *places]))["run"])
    (wanted,), (found,) = ([row["val/pope"] for row in rows(folder) if "val/pope" in row] for folder in (one, two))
    assert 0 < wanted < 1
    assert found == wanted


def test_status_tells_what_was_read(chats, alone):
    _, single = alone
    data = json.loads((single / "data.json").read_text())
    assert data["asked"] == {"chat_jsonl": 1.0}
    assert data["delivered"]["chat_jsonl"]["samples"] == 160
    assert data["rows_read"] == 160
    assert data["reasons"] == {}
