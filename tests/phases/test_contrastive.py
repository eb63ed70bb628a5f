"""What contrastive pretraining guarantees, on real components: one big batch, however it is worked off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from tests.prepared import ROOT
from vlm.build import compose
from vlm.contracts.errors import ConfigError
from vlm.contracts.settings import RunConfig
from vlm.data import sources
from vlm.data.loader import Collate
from vlm.data.plan import Planner
from vlm.evaluation.gallery import groups, retrieval
from vlm.job import Job
from vlm.launch import _free_port
from vlm.losses.contrastive import clip_loss, siglip_loss
from vlm.phases import base
from vlm.phases.contrastive import Contrastive
from vlm.phases.one_batch import equal
from vlm.run import train
from vlm.training.folder import RunFolder

SMALL = [
    "model=two_tower", "phase=contrastive", "text=tower_nano", "text.tokenizer.size=300", "text.width=32",
    "text.heads=2", "text.mlp=64", "model.width=32", "data=own_captions", "encoder=keural_nano", "phase.global_batch=16",
    "phase.max_steps=1", "phase.log_every=1", "phase.validate_every=100", "phase.save_every=100",
    "logging.wandb=disabled", "logging.progress=false", "hardware.threads=1",
]  # fmt: skip
EXACT = ["hardware.precision=64-true", "phase.optimizer.clip_norm=null"]
SIGLIP = ["phase.loss.name=siglip", "model.bias=-10.0", "model.temperature=0.1"]
BUDGETS = ["phase.budgets=[16,64]", "phase.budget_shares=[0.6,0.4]"]


def prepared_job(data: Path, runs: Path, *overrides: str) -> Job:
    made = compose([*SMALL, f"paths.data={data}", f"paths.runs={runs}", *overrides])
    settings = TypeAdapter(RunConfig).validate_json(json.dumps(made.config))
    opened = sources.open_all(settings.paths.data, settings.data)
    job = Job(made.config, settings, RunFolder(runs / "run"), opened, [])
    job.prepare()
    return job


def finished(job: Job) -> Job:
    job.folder.open()
    try:
        job.run()
    finally:
        job.folder.close()
    return job


def gradients(job: Job, patch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Of the first step, after division by the count; no more than one step is taken."""
    found: dict[str, torch.Tensor] = {}
    clip = base.clip

    def keeping(model, settings):
        found.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        return clip(model, settings)

    patch.setattr(base, "clip", keeping)
    finished(job)
    return found


def loss_of(job: Job) -> float:
    lines = (job.folder.path / "metrics.jsonl").read_text().splitlines()
    return next(row["train/loss"] for row in map(json.loads, lines) if "train/loss" in row)


def whole_step(job: Job) -> torch.Tensor:
    """The micro-batches of a step as one graph, by the definition: the loss with its aux terms, divided by the count."""
    phase: Contrastive = job.phase
    planner = Planner(job.phase_config["global_batch"], job.micro_batch)
    collate = Collate(job.model.processor, False)
    loaded = [collate([job.rows[position] for position in positions]) for positions in planner(0)]
    outputs, captions, aux = [], [], 0.0
    for index, each in enumerate(loaded):
        phase.draw_for(index)
        batch = phase.ready(each)
        outputs.append(phase.model(batch))
        captions.append(phase._captions(batch))
        aux = aux + sum(weight * outputs[-1].aux[name] * len(batch.ids) for name, weight in phase.aux.items())
    same = equal(torch.cat(captions))
    image, text = (torch.cat([getattr(output, name) for output in outputs]) for name in ("image", "text"))
    joint = phase.model.joint
    scale = [joint.log_scale] if joint.bias is None else [joint.log_scale, joint.bias]
    loss = (clip_loss if joint.bias is None else siglip_loss)(image, text, same, *scale)
    return (loss.total + aux) / loss.count


@pytest.mark.parametrize("loss", [[], SIGLIP], ids=["clip", "siglip"])
def test_micro_batches_give_the_gradients_of_the_whole_batch(data, tmp_path, monkeypatch, loss):
    """Negatives come from the whole batch, of which eight texts are all there are, so captions are equal, too."""
    found, losses = {}, {}
    for micro in (16, 8, 2):
        words = [*EXACT, *loss, f"hardware.micro_batch={micro}", "phase.aux={saliency: 0.5}"]
        with monkeypatch.context() as patch:
            job = prepared_job(data, tmp_path / f"{micro}", *words)
            found[micro] = gradients(job, patch)
        losses[micro] = loss_of(job)
    names = {name for name, _ in job.model.named_parameters()}
    assert found[16].keys() == found[8].keys() == found[2].keys() == names
    for name, gradient in found[16].items():
        assert gradient.abs().max() > 0, name
        for micro in (8, 2):
            torch.testing.assert_close(found[micro][name], gradient, rtol=1e-6, atol=1e-12, msg=name)
    assert losses[8] == pytest.approx(losses[16], rel=1e-9)
    assert losses[2] == pytest.approx(losses[16], rel=1e-9)


@pytest.mark.parametrize("micro", [16, 4])
def test_both_times_that_a_micro_batch_is_seen_it_draws_the_same(data, tmp_path, monkeypatch, micro):
    """Against one graph over all micro-batches, with branches left out at random."""
    words = [*EXACT, *BUDGETS, "encoder.drop_path=0.5", "phase.aux={saliency: 0.5}", f"hardware.micro_batch={micro}"]
    twin = prepared_job(data, tmp_path / "twin", *words)
    twin.model.double().train()
    twin.phase.trainer = twin._trainer([], None)
    with twin.phase.trainer.precision_plugin.forward_context():
        wanted = whole_step(twin)
    wanted.backward()
    job = prepared_job(data, tmp_path / "run", *words)
    found = gradients(job, monkeypatch)
    assert loss_of(job) == pytest.approx(float(wanted.detach()), rel=1e-6)
    for name, parameter in twin.model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-6, atol=1e-12, msg=name)


def test_the_budget_of_a_step_follows_its_shares_and_nothing_but_seed_and_step(data, tmp_path):
    phases = [prepared_job(data, tmp_path / f"{n}", *BUDGETS, f"hardware.micro_batch={n}").phase for n in (16, 2)]
    drawn = [[phase.budget(step) for step in range(4000)] for phase in phases]
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == {16, 64}
    assert drawn[0].count(16) / 4000 == pytest.approx(0.6, abs=0.03)
    assert prepared_job(data, tmp_path / "default").phase.budget(0) is None
    other = prepared_job(data, tmp_path / "seed", *BUDGETS, "seed=1").phase
    assert drawn[0] != [other.budget(step) for step in range(4000)]


def test_every_picture_of_a_step_is_seen_with_its_budget(data, tmp_path, monkeypatch):
    job = prepared_job(data, tmp_path, *BUDGETS, "hardware.micro_batch=8", "phase.max_steps=6")
    seen, forward = [], job.model.encoder.forward

    def watched(views, token_budget=None):
        if job.model.encoder.training:
            seen.append(token_budget)
        return forward(views, token_budget)

    monkeypatch.setattr(job.model.encoder, "forward", watched)
    finished(job)
    wanted = [job.phase.budget(step) for step in range(6)]
    assert seen == [budget for budget in wanted for _ in range(4)]  # two micro-batches, each seen twice
    assert len(set(wanted)) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["phase.budgets=[16,64]", "phase.budget_shares=[0.6]"], "1 shares for 2 budgets"),
        (["phase.budgets=[16,64]", "phase.budget_shares=[0.6,0.6]"], "they sum to 1.2, but must sum to 1"),
        (["phase.budgets=[15]", "phase.budget_shares=[1.0]"], r"13.*16"),
        (
            ["phase.budgets=[16]", "phase.budget_shares=[1.0]", "encoder=vit_nano"],
            "this encoder always gives 16 tokens",
        ),
        (["phase.loss.name=siglip"], "model.bias: null, but phase.loss.name is siglip"),
        (["model.bias=-10.0"], "model.bias: is given, but phase.loss.name is clip"),
    ],
    ids=["unequal lists", "shares", "illegal budget", "no choice", "no bias", "bias"],
)
def test_settings_that_do_not_fit_each_other_are_refused(data, tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        prepared_job(data, tmp_path, *words)


def test_the_scale_is_at_its_limit_after_a_step_that_would_pass_it(data, tmp_path):
    job = prepared_job(data, tmp_path)
    job.model.joint.log_scale.data.fill_(4.7)
    finished(job)
    assert float(job.model.joint.log_scale.detach().exp()) == pytest.approx(100)


@pytest.mark.parametrize("encoder", ["vit_nano", "cnn"])
def test_every_encoder_can_be_pretrained(data, tmp_path, encoder):
    job = finished(prepared_job(data, tmp_path, f"encoder={encoder}", "hardware.micro_batch=8"))
    assert job.folder.status["step"] == 1


def test_a_frozen_encoder_and_a_frozen_scale_stand_still(data, tmp_path):
    rates = "phase.trainable={encoder: null, joint: {image: 1.0e-3, text: 1.0e-3, log_scale: null}}"
    job = prepared_job(data, tmp_path, rates, "hardware.micro_batch=8", "phase.max_steps=2")
    before = {name: tensor.clone() for name, tensor in job.model.state_dict().items()}
    finished(job)
    moved = {name for name, tensor in job.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.partition(".")[0] for name in moved} == {"text", "joint"}
    assert "joint.log_scale" not in moved


# -- validation -----------------------------------------------------------------------------------------------


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_perfect_encoder_finds_all_and_a_constant_one_nothing():
    rows = unit(np.random.default_rng(0).normal(size=(64, 32)))
    perfect = retrieval(rows, rows, np.eye(64, dtype=bool))
    assert perfect.first.mean() == perfect.among_five.mean() == 1
    constant = retrieval(np.ones_like(rows) / 32**0.5, rows, np.eye(64, dtype=bool))
    assert constant.first.mean() <= 0.5 / 64  # from one text all pictures look the same: ties count against
    nothing = np.ones((64, 32)) / 32**0.5
    assert retrieval(nothing, nothing, np.eye(64, dtype=bool)).among_five.mean() == 0
    assert perfect.chance.mean() == pytest.approx(1 / 64)


def test_retrieval_is_by_the_definition_with_equal_captions_equally_right():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 6, 20)
    image, text = unit(generator.normal(size=(20, 5))), unit(generator.normal(size=(6, 5)))[labels]
    same = labels[:, None] == labels[None]
    found = retrieval(image, text, same)
    scores = image @ text.T
    for row in range(20):
        hits = []
        for line in (scores[row], scores[:, row]):
            best = max(line[column] for column in range(20) if labels[column] == labels[row])
            ahead = sum(line[column] >= best for column in range(20) if labels[column] != labels[row])
            hits.append((ahead < 1, ahead < 5))
        assert found.first[row] == np.mean([hit[0] for hit in hits])
        assert found.among_five[row] == np.mean([hit[1] for hit in hits])
        assert found.chance[row] == pytest.approx((labels == labels[row]).mean())


def test_groups_are_of_64_and_what_is_left_over_would_be_easier():
    assert [(group.start, group.stop) for group in groups(150)] == [(0, 64), (64, 128)]
    assert [(group.start, group.stop) for group in groups(10)] == [(0, 10)]


def test_a_validation_tells_loss_recalls_chance_and_each_budget(data, tmp_path):
    job = finished(prepared_job(data, tmp_path, *BUDGETS))
    row = job.phase.validated
    assert row["val/chance_r1"] < 0.5
    assert 0 <= row["val/retrieval_r1_low"] <= row["val/retrieval_r1"] <= row["val/retrieval_r5"] <= 1
    assert row["val/retrieval_r1_64"] == row["val/retrieval_r1"]  # the encoder's default
    assert 0 <= row["val/retrieval_r1_16"] <= 1
    assert job.folder.status["metrics"]["val/loss"] == row["val/loss"]


def test_it_learns_which_caption_belongs_to_which_picture(data, tmp_path):
    """Eight texts for eighty pictures: a colour and a side, of which held-out pictures show other shades and places."""
    words = ["phase.max_steps=80", "phase.schedule.warmup=0.1", "phase.global_batch=32", "phase.validate_every=80"]
    words += ["phase.keep.by=val/retrieval_r1"]
    result = train(compose([*SMALL, *BUDGETS, *words, f"paths.data={data}", f"paths.runs={tmp_path}"]))
    status = json.loads((Path(result["run"]) / "status.json").read_text())
    metrics = status["metrics"]
    assert metrics["val/retrieval_r1"] > metrics["val/chance_r1"] + 0.3
    assert status["best"] == {"metric": "val/retrieval_r1", "value": metrics["val/retrieval_r1"], "step": 80}
    assert not (Path(result["run"]) / "samples").exists()  # two towers say nothing
    assert (Path(result["run"]) / "model" / "joint.safetensors").exists()


# -- ranks ----------------------------------------------------------------------------------------------------

RANKED = [word for word in SMALL if not word.startswith("phase.max_steps")] + [
    "phase.max_steps=4", "phase.validate_every=4", *BUDGETS, "phase.aux={saliency: 0.5}", "phase.optimizer.clip_norm=null",
]  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "profile"),
    [
        ([], "cpu_ddp2"),
        pytest.param(SIGLIP, "cpu_ddp2", marks=pytest.mark.slow),
        pytest.param([], "cpu_fsdp2", marks=pytest.mark.slow),
    ],
    ids=["clip", "siglip", "clip, sharded"],
)
def test_two_ranks_take_the_steps_of_one(data, tmp_path, loss, profile):
    """Each rank's rows meet those of the other, whose gradients it does not have."""
    one, single = ranked(data, tmp_path / "one", 1, *loss)
    two, double = ranked(data, tmp_path / "two", 2, *loss, f"hardware={profile}", "hardware.micro_batch=4")
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(
            two[name], gradient, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    first, second = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (single, double)
    )
    assert len(first) == len(second) == 5
    for row, other in zip(first, second, strict=True):
        numbers = {name: value for name, value in row.items() if name.startswith(("train/", "val/"))}
        assert {name: other[name] for name in numbers} == pytest.approx(numbers, abs=1e-3)


def ranked(data: Path, root: Path, world: int, *words: str) -> tuple[dict[str, torch.Tensor], Path]:
    """Gradients of the first step, from a run of `world` processes started as a launcher would. Returns: also its folder."""
    root.mkdir()
    file, shape = root / "gradients.pt", {}
    if world > 1:
        shape = {
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "NODE_RANK": "0",
        }
    places = {"VLM_DATA": str(data), "VLM_RUNS": str(root), "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.runs.gradients", str(file), *RANKED, *words],
            cwd=ROOT,
            env=os.environ | places | ({"RANK": str(number), "LOCAL_RANK": str(number)} if world > 1 else {}) | shape,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(world)
    ]
    said = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0] * world, said
    return torch.load(file), Path(said[0][0].strip())
