"""Run folders and data whose files were damaged: named, or worked round without a change of the numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import vlm
from tests.runs.commands import assert_same_weights, rows, status, train
from vlm.contracts.errors import InputError, RunError
from vlm.contracts.recipe import KeepSettings
from vlm.training import checkpoint
from vlm.training.folder import RunFolder


def flip(data: Path, split: str, row: int) -> None:
    """One bit in the picture of a row of `mnist`."""
    index = np.load(data / "mnist" / split / "index.npy")
    shard = data / "mnist" / split / "shard-000000.tar"
    content = bytearray(shard.read_bytes())
    content[int(index["offset"][row]) + int(index["span"][row]) - 600] ^= 1
    shard.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("checkpoints/values.json", b""),
        ("checkpoints/values.json", b"[1, 2]"),
        ("checkpoints/values.json", b"\xff\x00"),
    ],
)
def test_a_damaged_note_of_the_best_checkpoints_costs_nothing(
    data, whole, tmp_path, stops_at_20, monkeypatch, file, content
):
    with pytest.raises(SystemExit):
        train(data, tmp_path, "phase.max_steps=120")
    (folder,) = (tmp_path / "purevlm").iterdir()
    (folder / file).write_bytes(content)
    monkeypatch.undo()
    train(data, tmp_path, "phase.max_steps=120")
    assert_same_weights(folder, whole)


@pytest.mark.parametrize("file", ["status.json", "data.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_damaged_record_of_a_run_is_named(data, tmp_path, stops_at_20, file, content):
    with pytest.raises(SystemExit):
        train(data, tmp_path, "phase.max_steps=120")
    (folder,) = (tmp_path / "purevlm").iterdir()
    (folder / file).write_text(content)
    if (file, content) == ("status.json", "{}"):
        return  # an unfinished run that says nothing of itself goes on
    with pytest.raises(InputError, match=rf"{file}.*move the run folder away"):
        train(data, tmp_path, "phase.max_steps=120")


def test_a_checkpoint_of_another_seed_is_refused(data, tmp_path, stops_at_20, monkeypatch):
    with pytest.raises(SystemExit):
        train(data, tmp_path, "phase.max_steps=120")
    (folder,) = (tmp_path / "purevlm").iterdir()
    monkeypatch.undo()
    other = train(data, tmp_path / "other", "phase.max_steps=40", "seed=1")
    shutil.copy(checkpoint.all_of(other / "checkpoints")[-1], folder / "checkpoints")
    with pytest.raises(InputError, match="belongs to another model or recipe: seed, data or another key"):
        train(data, tmp_path, "phase.max_steps=120")


def test_a_run_that_is_at_work_is_left_alone_whatever_it_replaces(data, tmp_path):
    """Reading a folder whose checkpoints come and go, as a second command does."""
    held = RunFolder(tmp_path / "held")
    held.open()
    keep = KeepSettings(1, 0, None)
    writer = checkpoint.Checkpoints(tmp_path / "held" / "checkpoints", keep)
    for step in range(1, 60):
        writer.write(checkpoint.State(step, {}, {}, {}, {}, {}, "", "", True))
        found = checkpoint.newest(tmp_path / "held" / "checkpoints")
        assert found is None or found.step in (step - 1, step)
    writer.wait()
    writer.close()


def test_a_test_set_that_cannot_be_scored_costs_no_model(data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    flip(copy, "test", 3)
    with pytest.raises(
        RunError, match="the model is trained and saved, but its test set cannot be scored: media_undec"
    ):
        train(copy, tmp_path, "phase.max_steps=3")
    (folder,) = (tmp_path / "purevlm").iterdir()
    assert vlm.load_model(folder) is not None


def test_validation_rows_that_cannot_be_read_are_left_out_and_told(data, tmp_path, caplog):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    flip(copy, "train", 210)
    folder = train(copy, tmp_path, "phase.max_steps=3")
    last = next(row for row in rows(folder) if "val/loss" in row)
    assert (last["val/samples"], last["val/skipped"]) == (39.0, 1.0)
    assert status(folder)["warnings"][0].startswith("validation rows that cannot be used were left out: 1")


def test_answers_that_are_cut_are_counted_in_training_and_validation_and_told_at_the_end(data, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = train(data, tmp_path, "phase.max_steps=20", "llm.template.max_tokens=6")
    last = [row for row in rows(folder) if "val/loss" in row][-1]
    cut = status(folder)["data"]["cut"]
    assert 0 < last["val/cut"] < last["val/samples"]
    assert status(folder)["metrics"]["val/cut"] == last["val/cut"]
    assert 0 < cut < 160
    (told,) = [record.getMessage() for record in caplog.records if "cut to fit" in record.getMessage()]
    assert (
        f"{cut} of 160 samples cut to fit, 0 of 160 rows skipped; of the last validation {last['val/cut']:.0f}" in told
    )
    assert "raise llm.template.max_tokens" in told


def test_rows_that_are_too_long_on_request_are_told_once_with_advice_that_fits(data, tmp_path, caplog):
    """Over several epochs, so that each of them is met again."""
    caplog.set_level("INFO")
    words = ["phase.max_steps=100", "llm.template.max_tokens=6", "data.overflow=skip", "data.skip_budget=1.0"]
    folder = train(data, tmp_path, *words)
    said = [record.getMessage() for record in caplog.records]
    met = [json.loads(line)["row"] for line in (folder / "skipped.jsonl").read_text().splitlines()]
    skips = [line for line in said if line.startswith("skipped mnist row")]
    named = [line.split()[3] for line in skips]
    assert len(set(named)) == len(named) <= len(set(met)) < len(met)
    others = sum(int(line.rpartition("(and ")[2].split()[0]) for line in skips if "(and " in line)
    assert len(named) + others == len(set(met))
    (warning,) = status(folder)["warnings"]
    assert "first mnist row 201: text_long" in warning  # of the set, not of the part that is read
    assert "text_long: raise llm.template.max_tokens, or shorten such texts with data.overflow=cut" in warning
    assert "data.skip_budget counts training rows only" in warning
    assert "again" not in warning
    (told,) = [line for line in said if "cut to fit" in line]
    assert f"{len(met)} of {800 + len(met):,} rows skipped (text_long {len(met)})" in told
    assert "data.overflow=cut" in told


def test_a_skip_budget_that_is_spent_by_long_texts_says_so(data, tmp_path):
    words = ["phase.max_steps=200", "llm.template.max_tokens=6", "data.overflow=skip"]
    with pytest.raises(RunError, match=r"rows could not be used \(text_long \d+\), more than .*data.overflow=cut$"):
        train(data, tmp_path, *words)
