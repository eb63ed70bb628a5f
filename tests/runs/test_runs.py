"""Run folders as a user meets them: started, stopped, killed, started again."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

import vlm
from tests.prepared import ROOT
from tests.runs.commands import assert_same_weights, command, environment, rows, status, train, weights
from vlm.contracts.errors import InputError, RunError
from vlm.training import checkpoint
from vlm.training.folder import RunFolder


def test_a_run_leaves_all_that_is_needed_to_know_use_and_repeat_it(data, whole, capsys, caplog):
    assert len(whole.name) == 12
    for name in ("config.yaml", "command.txt", "versions.json", "data.json", "status.json", "metrics.jsonl"):
        assert (whole / name).stat().st_size > 0, name
    last = status(whole)
    assert (last["state"], last["step"]) == ("finished", 120)
    assert last["metrics"]["test/exact_match_n"] == 40
    train_rows = [row for row in rows(whole) if "train/loss" in row]
    assert [row["step"] for row in train_rows] == list(range(5, 121, 5))
    assert train_rows[-1]["samples"] == 960
    speed = {"perf/samples_per_s", "perf/tokens_per_s", "perf/data_wait", "perf/memory_gb"}
    assert speed | {"optim/grad_norm", "optim/rate/llm"} <= train_rows[-1].keys()
    samples = [json.loads(line) for line in (whole / "samples" / "samples.jsonl").read_text().splitlines()]
    model = vlm.load_model(whole)
    assert [vlm.generate(model, "", images=[whole / "samples" / sample["image"]]) for sample in samples[:1]] == [
        samples[0]["answer"]
    ]
    with caplog.at_level("INFO"):
        again = train(data, whole.parents[1], "phase.max_steps=120")
    assert again == whole
    assert "is finished; nothing to do" in caplog.text
    assert capsys.readouterr().out == f"{whole}\n"


def test_a_run_that_is_asked_to_stop_saves_and_goes_on_to_the_same_weights(data, whole, tmp_path, stops_at_20, caplog):
    with pytest.raises(SystemExit) as stopped:
        train(data, tmp_path, "phase.max_steps=120")
    assert stopped.value.code == 75
    folder = tmp_path / "purevlm" / whole.name
    assert status(folder)["state"] == "stopped"
    with caplog.at_level("INFO"):
        train(data, tmp_path, "phase.max_steps=120")
    assert "going on from" in caplog.text
    assert_same_weights(folder, whole)
    told = [
        {key: value for key, value in row.items() if not key.startswith(("perf", "seconds"))} for row in rows(folder)
    ]
    assert told == [
        {key: value for key, value in row.items() if not key.startswith(("perf", "seconds"))} for row in rows(whole)
    ]


def test_resume_takes_a_run_to_other_hardware(data, whole, tmp_path, stops_at_20):
    with pytest.raises(SystemExit):
        train(data, tmp_path, "phase.max_steps=120")
    folder = tmp_path / "purevlm" / whole.name
    moved = train(data, tmp_path, "phase.max_steps=120", "hardware.workers=1", f"resume={folder}")
    assert moved != folder
    assert_same_weights(moved, whole)


@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 75), pytest.param(signal.SIGINT, 75, marks=pytest.mark.slow)],
)
def test_a_process_that_is_signalled_leaves_a_run_that_goes_on(data, whole, tmp_path, sent, code):
    """The whole command, as a cluster or a person ends it."""
    words = ("phase.max_steps=120", "phase.log_every=1")
    process = subprocess.Popen(
        command(*words), cwd=ROOT, env=environment(data, tmp_path), stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob("purevlm/*/checkpoints/step-*.ckpt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(sent)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == code, messages
    folder = train(data, tmp_path, *words)
    assert_same_weights(folder, whole)


def test_a_second_process_on_one_run_folder_is_refused(data, whole):
    held = RunFolder(whole.parent / "held")
    held.open()
    second = RunFolder(whole.parent / "held")
    with pytest.raises(InputError, match="another process works in this run folder"):
        second.open()
    held.close()
    second.open()


def test_data_that_is_not_there_is_refused_with_the_command_that_gets_it(tmp_path):
    with pytest.raises(InputError, match="make data SOURCE=mnist"):
        train(tmp_path / "nothing", tmp_path / "runs", "phase.max_steps=2")
    assert not (tmp_path / "runs").exists()


def test_a_sweep_goes_on_after_a_failed_job_and_starts_only_what_is_missing(data, tmp_path):
    words = ["-m", "phase.max_steps=6", "phase.trainable.llm=1.0e+30,1.0e-3"]
    sweep = [
        subprocess.run(
            command(*words), cwd=ROOT, env=environment(data, tmp_path), capture_output=True, text=True, timeout=240
        )
        for _ in range(2)
    ]
    assert [call.returncode for call in sweep] == [1, 1]
    states = sorted(status(folder)["state"] for folder in (tmp_path / "purevlm").iterdir())
    assert states == ["failed", "finished"]
    assert "not both finite" in sweep[0].stderr
    assert "is finished; nothing to do" not in sweep[0].stderr
    assert sweep[1].stderr.count("is finished; nothing to do") == 1
    for word in ("failed", "finished", "phase.trainable.llm"):
        assert word in sweep[0].stderr


def test_new_runs_start_from_the_parts_of_old_ones(data, whole, tmp_path):
    still = ["phase.max_steps=1", *(f"phase.trainable.{part}=1.0e-30" for part in ("encoder", "connector", "llm"))]
    assert_same_weights(train(data, tmp_path, *still, f"init_from={whole}"), whole)
    part = train(data, tmp_path, *still, f"weights={{encoder: '{whole}'}}")
    same = {name for name, tensor in weights(part).items() if torch.equal(tensor, weights(whole)[name])}
    assert {"bae1_l", "bae_deg3_2"} <= same
    assert "wte" not in same


def test_a_full_disk_is_told_and_costs_no_checkpoint(data, tmp_path, monkeypatch):
    write = torch.save

    def full(content, file):
        if content["step"] == 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(content, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match="No space left on device; free some space"):
        train(data, tmp_path, "phase.max_steps=60")
    (folder,) = (tmp_path / "purevlm").iterdir()
    assert status(folder)["state"] == "failed"
    assert [checkpoint.step_of(path) for path in checkpoint.all_of(folder / "checkpoints")] == [20]
    assert not list((folder / "checkpoints").glob(".*"))
    monkeypatch.undo()
    assert status(train(data, tmp_path, "phase.max_steps=60"))["state"] == "finished"


@pytest.mark.parametrize("fault", ["missing", "extra", "shape", "cut"])
def test_a_saved_model_that_does_not_fit_is_refused_by_name(whole, tmp_path, fault):
    folder = tmp_path / "model"
    shutil.copytree(whole / "model", folder)
    file = folder / "llm.safetensors"
    tensors = load_file(file)
    if fault == "missing":
        del tensors["wte"]
    elif fault == "extra":
        tensors["surplus"] = torch.zeros(1)
    elif fault == "shape":
        tensors["wte"] = torch.zeros(3, 3)
    save_file(tensors, file)
    if fault == "cut":
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"llm\.safetensors.*(wte|surplus|cannot be read)"):
        vlm.load_model(folder)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no config.json"):
        vlm.load_model(tmp_path)
    with pytest.raises(InputError, match="there is no such folder"):
        vlm.load_model(tmp_path / "nothing")


def test_a_checkpoint_that_was_cut_short_is_left_out(data, whole, tmp_path, stops_at_20, monkeypatch, caplog):
    with pytest.raises(SystemExit):
        train(data, tmp_path, "phase.max_steps=120", "phase.save_every=20")
    (folder,) = (tmp_path / "purevlm").iterdir()
    whole_file = checkpoint.all_of(folder / "checkpoints")[-1]
    damaged = whole_file.with_name(
        whole_file.name.replace(f"step-{checkpoint.step_of(whole_file):08d}", "step-00000031")
    )
    content = bytearray(whole_file.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    (folder / "checkpoints" / "step-00000032-0123456789abcdef.ckpt").write_bytes(content[:1000])
    monkeypatch.undo()
    train(data, tmp_path, "phase.max_steps=120")
    assert "its checksum differs" in caplog.text
    assert_same_weights(folder, whole)


def test_a_run_belongs_to_the_data_that_it_was_started_with(data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    folder = train(copy, tmp_path, "phase.max_steps=2")
    manifest = copy / "mnist" / "train" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"converter_version": ', '"converter_version": 9'))
    with pytest.raises(InputError, match="train/mnist, validate/mnist was prepared anew"):
        train(copy, tmp_path, "phase.max_steps=2")
    shutil.rmtree(copy)
    assert train(copy, tmp_path, "phase.max_steps=2") == folder  # finished, whatever became of the data


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["phase.max_steps=130", "phase.trainable.llm=null"],
            r"another recipe \(phase.trainable.llm: 0.003 then, None",
        ),
        (["phase.max_steps=130", "llm.mlp=64"], r"another recipe \(llm.mlp: 128 then, 64 now"),
        (["phase.max_steps=60"], "at step 120 already"),
    ],
)
def test_resuming_what_does_not_fit_is_refused_before_a_folder_exists(data, whole, tmp_path, words, message):
    with pytest.raises(InputError, match=message):
        train(data, tmp_path / "runs", *words, f"resume={whole}")
    assert not (tmp_path / "runs").exists()


def test_a_model_that_cannot_be_written_is_told_and_the_run_goes_on_later(data, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vlm.training.weights.save_file", full)
    with pytest.raises(RunError, match=r"model cannot be written.*free some space"):
        train(data, tmp_path, "phase.max_steps=3")
    monkeypatch.undo()
    folder = train(data, tmp_path, "phase.max_steps=3")
    assert status(folder)["state"] == "finished"
    assert rows(folder)[0]["data/cut"] == rows(folder)[0]["data/skipped"] == 0
