"""metrics.jsonl is the truth; the mirror may fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import wandb

from vlm.contracts.settings import LoggingSettings
from vlm.training.log import MetricLog, WandbMirror, lineage


def mirror(folder: Path, mode: str = "offline") -> WandbMirror:
    settings = LoggingSettings(wandb=mode, project="vlm", group=None, progress=False)  # type: ignore[arg-type]
    return WandbMirror(settings, folder, "0123456789ab", "sft", ["encoder=cnn"], {"name": "x"})


def test_rows_beyond_the_checkpoint_are_dropped_on_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricLog(path, from_step=0)
    for step in (5, 10, 15):
        log.write({"step": step, "train/loss": float("nan") if step == 10 else 1.0})
    log.close()
    with path.open("a") as file:
        file.write('{"step": 20, "train/lo')  # the process was killed here
    MetricLog(path, from_step=10).close()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [{"step": 5, "train/loss": 1.0}, {"step": 10, "train/loss": None}]


def test_a_mirror_that_cannot_start_is_reported_and_forgotten(tmp_path, monkeypatch, caplog):
    def fails(**_):
        raise wandb.errors.CommError("no network")

    monkeypatch.setattr(wandb, "init", fails)
    broken = mirror(tmp_path, "online")
    broken.write({"step": 1})
    broken.finish(failed=False)
    assert caplog.text.count("W&B is switched off for this run (CommError: no network)") == 1


def test_runs_of_a_sweep_share_a_group_and_are_told_apart_by_phase_and_parts(tmp_path, monkeypatch):
    given = {}

    class Run:
        def define_metric(self, *_, **__): ...

    monkeypatch.setenv("VLM_SWEEP", "sweep-1")
    monkeypatch.setattr(wandb, "init", lambda **options: given.update(options) or Run())
    mirror(tmp_path)
    assert (given["mode"], given["group"], given["job_type"], given["tags"]) == (
        "offline",
        "sweep-1",
        "sft",
        ["encoder=cnn"],
    )
    assert given["id"] == "0123456789ab"


def test_switched_off_means_no_wandb_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("called"))
    mirror(tmp_path, "disabled").write({"step": 1})
    assert list(tmp_path.iterdir()) == []


def test_lineage_names_the_runs_that_gave_weights(tmp_path):
    run = tmp_path / "keural_alignment" / "0123456789ab"
    run.mkdir(parents=True)
    (run / "status.json").write_text("{}")
    foreign = tmp_path / "models" / "encoder"
    config = {"init_from": str(run), "weights": {"encoder": str(foreign), "llm": None}}
    assert lineage(config) == {"init_from": "keural_alignment-0123456789ab", "weights.encoder": str(foreign)}


class Run:
    """A run of W&B that notes what it is given; `broken` calls raise."""

    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        self.broken, self.logged, self.used, self.ended = broken, [], [], []
        self.config: dict = {}

    def define_metric(self, *_, **__) -> None: ...

    def log_artifact(self, artifact) -> None:
        if "log_artifact" in self.broken:
            raise OSError("disk full")
        self.logged.append(artifact)

    def finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


def saved_model(folder: Path) -> Path:
    (folder / "model" / "adapters").mkdir(parents=True)
    (folder / "model" / "encoder.safetensors").write_bytes(b"weights")
    (folder / "model" / "adapters" / "config.json").write_text("{}")
    return folder


def test_a_finished_run_leaves_its_model_as_references_and_copies_nothing(tmp_path, monkeypatch):
    run = Run()
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    mirror(saved_model(tmp_path)).finish(failed=False)
    (artifact,) = run.logged
    assert artifact.name == "x-0123456789ab"
    entries = artifact.manifest.entries
    assert sorted(entries) == ["adapters/config.json", "encoder.safetensors"]
    assert entries["encoder.safetensors"].ref == (tmp_path / "model" / "encoder.safetensors").as_uri()
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_model_that_cannot_become_an_artifact_costs_nothing_else(tmp_path, monkeypatch, caplog):
    run = Run(broken=("log_artifact",))
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    mirror(saved_model(tmp_path)).finish(failed=False)
    assert run.ended == [0]
    assert "is no artifact (OSError: disk full)" in caplog.text


def test_a_failed_run_leaves_no_artifact(tmp_path, monkeypatch):
    run = Run()
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    mirror(saved_model(tmp_path)).finish(failed=True)
    assert (run.logged, run.ended) == ([], [1])


@pytest.mark.slow
def test_an_offline_run_leaves_a_file_that_can_be_uploaded_later(tmp_path):
    real = mirror(tmp_path)
    real.write({"step": 1, "train/loss": 0.5})
    real.finish(failed=False)
    assert list(tmp_path.glob("wandb/offline-run-*/run-0123456789ab.wandb"))
