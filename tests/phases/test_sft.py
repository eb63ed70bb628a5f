"""What a supervised phase guarantees, on real components."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import TypeAdapter

from vlm.build import compose
from vlm.contracts.batch import IGNORE
from vlm.contracts.errors import ConfigError, RunError
from vlm.contracts.settings import RunConfig
from vlm.data import sources
from vlm.job import Job
from vlm.losses.language import language_loss
from vlm.phases import base
from vlm.phases.sft import SFT, other_pictures
from vlm.run import train
from vlm.training.folder import RunFolder

CAPTIONS = ["data=own_captions", "encoder=vit_nano", "connector=linear", "llm=gpt2_nano", "llm.tokenizer.size=300"]
SMALL = ["phase.samples=2", "phase.log_every=1", "logging.wandb=disabled", "logging.progress=false"]


def composed(data: Path, runs: Path, *overrides: str):
    return compose([*SMALL, f"paths.data={data}", f"paths.runs={runs}", *overrides])


def prepared_job(data: Path, runs: Path, *overrides: str) -> Job:
    made = composed(data, runs, *overrides)
    settings = TypeAdapter(RunConfig).validate_json(json.dumps(made.config))
    opened = sources.open_all(settings.paths.data, settings.data)
    job = Job(made.config, settings, RunFolder(runs / "run"), opened, [])
    job.prepare()
    return job


def gradients_of_first_step(job: Job, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    clip = base.clip

    def keeping(model, settings):  # called once the gradients of the step are ready
        found.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        return clip(model, settings)

    job.folder.open()
    with monkeypatch.context() as patched:
        patched.setattr(base, "clip", keeping)
        job.run()
    job.folder.close()
    assert found
    return found


@pytest.mark.parametrize("targets", ["answers", "all"])
@pytest.mark.parametrize("reduction", ["token", "sample"])
def test_accumulation_gives_the_gradients_of_the_whole_batch(data, tmp_path, monkeypatch, targets, reduction):
    """Rows of unequal length, so a mean of micro-batch means would differ."""
    found = {}
    for micro in (8, 4, 1):
        job = prepared_job(
            data,
            tmp_path / f"{micro}",
            *CAPTIONS,
            "phase.global_batch=8",
            "phase.max_steps=1",
            "phase.samples=0",
            f"hardware.micro_batch={micro}",
            "hardware.precision=64-true",
            "phase.optimizer.clip_norm=null",
            f"phase.targets={targets}",
            f"phase.loss.reduction={reduction}",
        )
        found[micro] = gradients_of_first_step(job, monkeypatch)
    assert found[8].keys() == found[4].keys() == found[1].keys()
    for name, gradient in found[8].items():
        torch.testing.assert_close(found[4][name], gradient, rtol=1e-9, atol=1e-13, msg=name)
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-9, atol=1e-13, msg=name)


def test_all_that_is_named_moves_and_all_else_stands_still(data, tmp_path):
    job = prepared_job(
        data,
        tmp_path,
        "data=own_captions",
        "encoder=cnn",
        "llm.tokenizer.size=300",
        "phase.global_batch=8",
        "phase.max_steps=2",
        "phase.trainable.encoder=null",
        "phase.trainable.llm=null",
        "phase.samples=0",
    )
    before = {name: tensor.clone() for name, tensor in job.model.state_dict().items()}
    job.folder.open()
    job.run()
    moved = {name for name, tensor in job.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"connector.project.weight", "connector.project.bias"}  # no BatchNorm statistics either


@pytest.mark.parametrize(("profile", "share"), [(32, 0.4), (128, 1.0)])
def test_a_device_gives_no_more_memory_than_its_profile_says(data, tmp_path, monkeypatch, profile, share):
    class Told(Exception): ...

    def told(fraction: float, device: int) -> None:
        raise Told(f"{fraction} of device {device}")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * 2**30))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", told)
    with pytest.raises(Told, match=f"^{share} of device 0$"):
        prepared_job(
            data, tmp_path, *CAPTIONS, "phase.max_steps=1", "hardware.accelerator=gpu", f"hardware.memory_gb={profile}"
        )


def test_a_path_inside_a_part_has_its_own_rate(data, tmp_path):
    job = prepared_job(
        data,
        tmp_path,
        *CAPTIONS,
        "phase.max_steps=1",
        "phase.trainable.encoder=null",
        "phase.trainable.connector=null",
        "phase.trainable.llm={blocks: {1: 1.0e-3, 2: {fc1: 2.0e-3}}}",
    )
    trainable = {name for name, p in job.model.named_parameters() if p.requires_grad}
    assert all(name.startswith(("llm.blocks.1.", "llm.blocks.2.fc1.")) for name in trainable)
    job.phase.train()
    training = {name for name, module in job.model.named_modules() if module.training}
    assert "llm.blocks.1.dropout" in training
    assert not any(name.startswith(("llm.blocks.0", "encoder")) for name in training)


def test_a_path_that_no_parameter_bears_is_an_error(data, tmp_path):
    with pytest.raises(ConfigError, match=r"phase.trainable.llm.blokcs"):
        prepared_job(data, tmp_path, *CAPTIONS, "phase.max_steps=1", "phase.trainable.llm={blokcs: 1.0e-3}")


def test_a_weighted_term_that_no_part_reports_is_an_error(data, tmp_path):
    words = ["encoder=bilinear", "encoder.degree2=0", "phase.max_steps=1", "phase.aux.reconstruction=0.1"]
    with pytest.raises(RunError, match=r"phase\.aux\.reconstruction"):
        train(composed(data, tmp_path, *CAPTIONS, *words))


def test_only_answers_carry_loss_unless_all_text_is_asked_for(data, tmp_path):
    shown = [*CAPTIONS, "phase.max_steps=1", "llm.template.prompt=true", "data.prompts=['what is this? ']"]
    answers = prepared_job(data, tmp_path / "a", *shown)
    everything = prepared_job(data, tmp_path / "b", *shown, "phase.targets=all")
    decode = answers.model.processor.tokenizer.decode

    def target(job: Job) -> str:
        example = job.rows[0].example
        return decode(example.labels[example.labels != IGNORE].tolist())

    assert target(answers).startswith("a ")
    assert target(everything) == "what is this? " + target(answers)
    assert (answers.rows[0].example.labels == answers.model.processor.tokenizer.special("<eos>")).sum() == 1


def test_pictures_are_exchanged_for_different_ones():
    assert other_pictures(torch.tensor([1, 2, 3])).tolist() == [1, 2, 0]
    assert other_pictures(torch.tensor([1, 1, 2, 2])).tolist() == [2, 3, 0, 1]
    same = other_pictures(torch.tensor([5]))
    assert same.tolist() == [0]


def test_vision_gain_is_the_loss_that_wrong_pictures_cost(data, tmp_path):
    """Against the definition, one row at a time."""
    job = prepared_job(data, tmp_path, *CAPTIONS, "phase.max_steps=1", "hardware.precision=64-true")
    model = job.model.double().eval()
    phase: SFT = job.phase.eval()
    loaded = next(iter(job._validation_loader()))
    phase.trainer = job._trainer([], None)
    phase.validation_step(loaded, 0)
    row = phase.validation_metrics()
    batch, other = phase.ready(loaded), other_pictures(loaded.batch.pictures)
    with torch.no_grad():
        right = language_loss(model(batch).logp, batch)
        wrong = language_loss(model(replace(batch, views=batch.views[other])).logp, batch)
    assert row["val/loss"] == pytest.approx((right.total / right.count).item())
    assert row["val/vision_gain"] == pytest.approx(((wrong.total - right.total) / right.count).item())
    assert row["val/vision_gain_se"] > 0


def test_a_model_that_ignores_its_pictures_is_called_so(data, tmp_path, caplog):
    job = prepared_job(
        data,
        tmp_path,
        *CAPTIONS,
        "phase.max_steps=2",
        "phase.validate_every=1",
        "phase.trainable.connector=null",
        "phase.trainable.encoder=null",
    )
    for parameter in job.model.connector.parameters():
        parameter.data.zero_()
    job.folder.open()
    job.run()
    assert job.folder.status["metrics"]["val/vision_gain"] == 0
    assert job.folder.status["warnings"][0].startswith("this model does not use its pictures")
    assert "this model does not use its pictures" in caplog.text


def test_a_loss_that_is_no_number_stops_the_run_and_names_its_samples(data, tmp_path):
    job = prepared_job(data, tmp_path, *CAPTIONS, "phase.max_steps=5", "phase.global_batch=4")
    job.model.llm.ln_f.weight.data[0] = float("nan")
    job.folder.open()
    with pytest.raises(RunError, match=r"step 0: loss nan"):
        job.run()
    broken = json.loads((job.folder.path / "failed_batch.json").read_text())
    assert len(broken["keys"]) == 4
    assert broken["keys"][0].startswith("caption_table-")


def test_it_learns_colours_and_sides_from_pictures(data, tmp_path):
    result = train(
        composed(
            data,
            tmp_path,
            *CAPTIONS,
            "phase.max_steps=150",
            "phase.global_batch=16",
            "phase.validate_every=150",
            "phase.trainable.encoder=1.0e-3",
            "phase.trainable.connector=1.0e-3",
            "phase.trainable.llm=1.0e-3",
            "phase.log_every=50",
        )
    )
    status = json.loads((Path(result["run"]) / "status.json").read_text())
    gain, error = status["metrics"]["val/vision_gain"], status["metrics"]["val/vision_gain_se"]
    assert gain > 0.05
    assert gain > 1.96 * error
    assert status["warnings"] == []
    samples = [
        json.loads(line) for line in (Path(result["run"]) / "samples" / "samples.jsonl").read_text().splitlines()
    ]
    assert all(sample["answer"].startswith("a ") for sample in samples)
