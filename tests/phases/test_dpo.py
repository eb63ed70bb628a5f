"""What preference optimization guarantees: where it starts, what it moves, what it tells, and when it stops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from PIL import Image

from tests import hf_folder
from tests.models.layouts import VIEWS
from tests.models.stacked import stacked_model, with_pictures
from vlm.contracts.errors import BrokenStep, ConfigError, RunError
from vlm.contracts.recipe import (
    GuardSettings,
    KeepSettings,
    OptimizerSettings,
    PreferenceLossSettings,
    ScheduleSettings,
)
from vlm.contracts.sample import Medium, Sample, Turn
from vlm.data.chat_template import ChatTemplate
from vlm.data.loader import Collate, Item, Loaded, Step
from vlm.data.processor import Processor
from vlm.data.tokens import FolderTokenizer
from vlm.data.views import Resize
from vlm.losses.language import language_loss
from vlm.losses.preference import answers, at_start
from vlm.models.llms.hf_causal import HFCausal
from vlm.models.vlm import VLM
from vlm.phases.dpo import DPO
from vlm.training.callbacks import Saver
from vlm.training.checkpoint import Checkpoints, newest
from vlm.training.ledger import Ledger
from vlm.training.sums import Sums

TOLD = ["reward_accuracy", "reward_margin", "chosen_drift", "rejected_drift", "logps_chosen", "logps_rejected"]
TOLD += ["kl", "tokens_chosen", "tokens_rejected", "preference"]
COLOURS = ["red", "green", "blue", "black", "white", "grey", "pink", "brown"]
KEEP = KeepSettings(last=2, best=1, every=None)
NO_GUARDS = GuardSettings(chosen_drift=None, score=None, score_drop=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return hf_folder.whole(tmp_path_factory.mktemp("llama"))


def medium(colour: str, number: int) -> Medium:
    from hashlib import sha256
    from io import BytesIO

    picture = Image.new("RGB", (32, 32), colour)
    picture.putpixel((0, number % 32), (number, 0, 0))
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return Medium("image", buffer.getvalue(), sha256(buffer.getvalue()).hexdigest())


def sample(number: int) -> Sample:
    colour, other = COLOURS[number % 8], COLOURS[(number + 3) % 8]
    turns = (Turn("user", (0, "what is on the table?")), Turn("assistant", (f"a {colour} kite, I think",)))
    return Sample(f"k{number}", turns, (medium(colour, number),), rejected=f"two {other} books")


def equipped(model: VLM, folder: Path) -> VLM:
    model.processor = Processor(
        Resize(VIEWS.height, [0.5] * 3, [0.5] * 3), FolderTokenizer(str(folder)),
        ChatTemplate(str(folder), 100, "2025-01-01"), model.connector.spec, model.llm.spec.positions,
    )  # fmt: skip
    return model


def model_of(folder: Path, **changes: Any) -> VLM:
    return equipped(stacked_model(folder, **changes), folder)


def phase_of(
    model: VLM, name: str = "sigmoid", rate: float = 1e-2, guards: GuardSettings = NO_GUARDS, **changes: Any
) -> DPO:
    settings = {
        "model": model, "seed": 0, "global_batch": 8, "max_steps": 3, "epochs": None, "log_every": 1,
        "validate_every": 1, "save_every": 1, "keep": KEEP, "samples": 0, "trainable": {"adapter": {"dpo": rate}},
        "reference": "adapter",
        "loss": PreferenceLossSettings(name, 0.1, changes.pop("chosen_nll", 0.0), 5.0),  # type: ignore[arg-type]
        "guards": guards, "optimizer": OptimizerSettings("adamw", [0.9, 0.999], 1e-8, 0.0, None),
        "schedule": ScheduleSettings("constant", 0.0, 1.0),
    }  # fmt: skip
    return DPO(**{**settings, **changes})  # type: ignore[arg-type]


def loaded(model: VLM, numbers: range | list[int], pack: bool = False) -> Loaded:
    examples = [model.processor.example(sample(number), pair=True) for number in numbers]
    return Collate(model.processor, pack)([Item(example) for example in examples])


class Steps:
    """The same eight pairs at every step, in micro-batches of `size`."""

    def __init__(self, model: VLM, size: int = 8) -> None:
        self.step = Step([loaded(model, range(begin, begin + size)) for begin in range(0, 8, size)])

    def __iter__(self) -> Iterator[Step]:
        while True:
            yield self.step


class HeldOut:
    """Two batches, of three pairs and of one."""

    def __init__(self, model: VLM) -> None:
        self.batches = [loaded(model, [9, 10, 11]), loaded(model, [12])]

    def __iter__(self) -> Iterator[Loaded]:
        return iter(self.batches)

    def __len__(self) -> int:
        return 2


def trainer_of(steps: int, callbacks: list[Any] | None = None, validate_every: int | None = 1) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu", devices=1, max_steps=steps, max_epochs=-1, val_check_interval=validate_every,
        check_val_every_n_epoch=None, num_sanity_val_steps=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks or [],
    )  # fmt: skip


class Judging(lightning.Callback):
    """After every validation, as a run's Saver does."""

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        pl_module.judge()


def run(phase: DPO, steps: int, validate: bool = True, callbacks: list[Any] | None = None) -> DPO:
    phase.total_steps, phase.validation_batches = steps, 2 if validate else None
    trainer = trainer_of(steps, callbacks or [Judging()], 1 if validate else None)
    held_out = HeldOut(phase.model) if validate else None
    if validate:
        trainer.validate(phase, held_out, verbose=False)
    trainer.fit(phase, Steps(phase.model), held_out)
    return phase


def attached(phase: DPO) -> DPO:
    phase.trainer = trainer_of(1)
    return phase


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "ddpo", "mdpo"])
def test_the_first_loss_is_that_of_two_equal_models_with_dropout_in_both_adapters(folder, name):
    phase = run(phase_of(model_of(folder, dropout=0.3), name), steps=1)
    assert phase.take_metrics()["train/preference"] == pytest.approx(at_start(phase.settings), abs=1e-4)
    assert at_start(phase.settings) == pytest.approx({"ipo": 25, "mdpo": 3 * math.log(2)}.get(name, math.log(2)))


def test_an_adapter_that_does_not_begin_at_zero_stops_the_run_before_its_first_step(folder):
    model = model_of(folder, started=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RunError, match=r"step 0: the preference loss is .*, but 0\.693147 .* Adapter 'dpo'"):
        run(phase_of(model), steps=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_differences_that_cancel_in_the_mean_are_found_too(folder):
    phase = attached(phase_of(model_of(folder)))
    found = {"preference": math.log(2), "kl": 1e-3, "chosen_drift": 0.0, "rejected_drift": 0.0}
    sums = Sums(numbers={"count": 2.0, **{f"aux/{name}": 2 * value for name, value in found.items()}})
    with pytest.raises(RunError, match=r"kl 1\.00e-03"):
        phase._check_start(sums)


def test_training_moves_the_upper_adapter_and_nothing_else(folder):
    model = model_of(folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = phase_of(model).ready(loaded(model, range(4)))
    with torch.no_grad():
        lower = model(batch, reference=True).reference
    phase = run(phase_of(model), steps=10)
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(".dpo." in name for name in moved)
    with torch.no_grad(), model.llm.below():
        assert torch.equal(model(batch).logp, lower)  # the adapter below speaks as before, bit for bit
    row = phase.take_metrics()
    assert row["train/reward_margin"] > 0
    assert {f"train/{name}" for name in TOLD} <= row.keys()


@pytest.mark.parametrize(
    ("trainable", "named"),
    [
        ({"adapter": {"sft": 1e-3, "dpo": 1e-3}}, r"adapter\.sft"),
        ({"adapter": {"dpo": 1e-3}, "connector": 1e-3}, "connector"),
        ({"adapter": {"sft": 1e-3}}, r"adapter\.sft"),
        ({"llm": 1e-3, "encoder": 1e-3}, "encoder, llm"),
    ],
)
def test_whatever_would_move_the_reference_is_refused_by_name(folder, trainable, named):
    with pytest.raises(ConfigError, match=rf"phase\.trainable: {named} would train.*{{adapter: {{dpo: RATE}}}}"):
        phase_of(model_of(folder), trainable=trainable)


def test_a_model_without_adapter_is_refused_with_the_remedy(folder):
    model = equipped(with_pictures(HFCausal(str(folder))), folder)
    with pytest.raises(ConfigError, match=r"llm\.adapters: DPO needs an adapter on top.*choose adapter=sft_dpo"):
        phase_of(model)


def test_a_model_without_pictures_cannot_compare_corrupted_ones(folder):
    model = model_of(folder)
    model.processor.spec = replace(model.processor.spec, count=lambda *_: 0)
    with pytest.raises(ConfigError, match=r"phase\.loss\.name: mdpo compares with a corrupted picture"):
        phase_of(model, "mdpo")


@pytest.mark.parametrize("name", ["sigmoid", "mdpo"])
def test_micro_batches_give_the_gradients_of_the_whole_batch(folder, name):
    found = {}
    for size in (8, 4, 1):
        phase = attached(phase_of(model_of(folder).double(), name, chosen_nll=0.05))
        phase.trainer.strategy._lightning_module = phase
        phase.manual_backward = lambda total: total.backward()  # type: ignore[method-assign]
        sums = phase.accumulate(Steps(phase.model, size).step)
        assert sums["count"] == 8
        found[size] = {n: p.grad for n, p in phase.model.named_parameters() if p.grad is not None}
    assert any("lora_B.dpo" in name for name in found[8])
    for size in (4, 1):
        for parameter, gradient in found[8].items():
            torch.testing.assert_close(found[size][parameter], gradient, rtol=1e-9, atol=1e-12)


def test_a_validation_tells_the_means_over_held_out_pairs(folder):
    model = model_of(folder).double().eval()
    for name, parameter in model.llm.named_parameters():
        if "lora_B.dpo" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    phase = attached(phase_of(model))
    phase.validation_batches = 2
    for number, part in enumerate(HeldOut(model)):
        phase.validation_step(part, number)
    phase.seen[2] = phase.seen[1]  # as another rank that had no batch left would repeat one
    row = phase.validation_metrics()
    assert {f"val/{name}" for name in [*TOLD, "loss", "samples"]} == row.keys()
    drifts = []
    for number in (9, 10, 11, 12):
        batch = phase.ready(loaded(model, [number]))
        output = model(batch, reference=True)
        drifts.append([moved.item() for moved in answers(output.logp - output.reference, batch)])
    chosen, rejected = (sum(column) / 4 for column in zip(*drifts, strict=True))
    assert row["val/samples"] == 4
    assert row["val/chosen_drift"] == pytest.approx(chosen, rel=1e-9)
    assert row["val/rejected_drift"] == pytest.approx(rejected, rel=1e-9)
    assert row["val/reward_margin"] == pytest.approx(0.1 * (chosen - rejected), rel=1e-9)
    assert row["val/reward_accuracy"] == sum(c > r for c, r in drifts) / 4
    margins = [0.1 * (c - r) for c, r in drifts]
    assert row["val/loss"] == pytest.approx(sum(math.log1p(math.exp(-m)) for m in margins) / 4, rel=1e-9)


def schooled(folder: Path) -> VLM:
    """All but the upper adapter has learned to give both answers, as supervised fine-tuning would."""
    model = model_of(folder).train()
    lower = [parameter for name, parameter in model.named_parameters() if ".dpo." not in name]
    optimizer = torch.optim.Adam(lower, 5e-3)
    batch = model.processor.finish(loaded(model, range(16)).batch, torch.float32)
    for _ in range(40):
        loss = language_loss(model(batch).logp, batch)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    return model


def test_the_guard_on_drift_stops_a_run_that_unlearns_its_answers_at_a_falling_loss(folder, tmp_path):
    """And says where the last sound checkpoint is; the same run with an anchor goes through."""
    guards = GuardSettings(chosen_drift=3.0, score=None, score_drop=0.0)
    model = schooled(folder)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    phase = phase_of(model, guards=guards)
    ledger = Ledger(["pairs"], 0.0, tmp_path / "skipped.jsonl")
    saver = Saver(Checkpoints(tmp_path / "checkpoints", KEEP), ledger, 1, 1, None, {})
    with pytest.raises(RunError) as caught:
        run(phase, steps=30, callbacks=[ledger, saver])
    saver.restore_signals()
    assert phase.validated["val/loss"] < 0.5
    said = str(caught.value)
    assert "the held-out chosen answers lost" in said
    assert "(phase.guards.chosen_drift allows 3)" in said
    assert "lower the rate in phase.trainable, or raise phase.loss.chosen_nll" in said
    state = newest(tmp_path / "checkpoints")
    assert state is not None
    assert state.step == phase.step - 1  # what the guard stopped was not saved
    assert f"step-{state.step:08d}" in said

    model.load_state_dict(start)
    anchored = run(phase_of(model, guards=guards, chosen_nll=0.1), steps=30)
    assert anchored.validated["val/chosen_drift"] > -1
    assert anchored.validated["val/reward_accuracy"] == 1


def test_the_guard_on_a_score_compares_with_the_value_before_the_first_step(folder):
    guards = GuardSettings(chosen_drift=None, score="val/vqa", score_drop=0.1)
    phase = phase_of(model_of(folder), guards=guards)
    scores = iter([0.8, 0.75, 0.71, 0.69, 0.9])
    phase.watch = lambda model: {"val/vqa": next(scores)}
    with pytest.raises(RunError, match=r"step 3: val/vqa fell from 0\.8000 before the first step to 0\.6900"):
        run(phase, steps=5)


def test_the_value_before_the_first_step_outlives_logging_and_a_resume(folder):
    guards = GuardSettings(chosen_drift=None, score="val/vqa", score_drop=0.1)
    phase = phase_of(model_of(folder), guards=guards)
    phase.watch = lambda model: {"val/vqa": 0.812345678901234}
    run(phase, steps=2)
    phase.take_metrics()
    resumed = attached(phase_of(model_of(folder), guards=guards))
    resumed.unlogged, resumed.step = Sums(numbers=phase.unlogged.numbers()), 2
    resumed.validated = {"val/chosen_drift": 0.0, "val/vqa": 0.72}
    resumed.judge()
    resumed.validated["val/vqa"] = 0.71
    with pytest.raises(RunError, match=r"fell from 0\.8123"):
        resumed.judge()
    assert "train/score" not in "".join(resumed.unlogged.named("aux/"))


def test_a_guard_that_cannot_be_held_is_refused(folder):
    unknown = phase_of(model_of(folder), guards=GuardSettings(chosen_drift=None, score="val/vqa", score_drop=0.1))
    with pytest.raises(RunError, match=r"phase\.guards\.score: no validation gives val/vqa"):
        run(unknown, steps=1)
    blind = phase_of(model_of(folder), guards=GuardSettings(chosen_drift=1.0, score=None, score_drop=0.1))
    with pytest.raises(RunError, match=r"phase\.guards: nothing is held out"):
        run(blind, steps=1, validate=False)


def test_a_drift_that_is_no_number_stops_the_run(folder):
    phase = attached(phase_of(model_of(folder), guards=GuardSettings(chosen_drift=1.0, score=None, score_drop=0.0)))
    phase.step, phase.validated = 4, {"val/chosen_drift": math.nan}
    with pytest.raises(RunError, match="step 4: the held-out chosen answers lost nan"):
        phase.judge()


def test_a_loss_that_is_no_number_is_a_broken_step_of_all_ranks(folder):
    model = model_of(folder)
    next(p for name, p in model.llm.named_parameters() if "lora_A.dpo" in name).data[0, 0] = math.nan
    with pytest.raises(BrokenStep, match=r"step 0: loss nan"):
        run(phase_of(model), steps=1, validate=False)


def test_it_learns_to_prefer_the_chosen_answers(folder):
    phase = phase_of(model_of(folder), rate=5e-3, chosen_nll=0.05)
    first = {}
    watch = phase.watch
    phase.watch = lambda model: first.setdefault("row", dict(phase.validation_metrics())) and watch(model)
    run(phase, steps=20)
    assert first["row"]["val/preference"] == pytest.approx(math.log(2))
    assert phase.validated["val/preference"] < 0.5
    assert phase.validated["val/reward_accuracy"] == 1
    assert phase.validated["val/chosen_drift"] > 0
