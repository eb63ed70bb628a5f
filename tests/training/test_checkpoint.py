"""Files from which a run goes on: whole or not there, checked, few."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from vlm.contracts.errors import InputError, RunError
from vlm.contracts.recipe import KeepSettings
from vlm.training import checkpoint
from vlm.training.checkpoint import Checkpoints, State


def state(step: int) -> State:
    return State(
        step=step,
        model={"a": torch.full((3,), float(step))},
        optimizer={"state": {}, "param_groups": []},
        schedule={"last_epoch": step},
        counters={"counts": {"samples": step}, "reasons": {}},
        unlogged={"total": 0.1 + 0.2},
        frozen="",
        recipe="",
        validated=True,
    )


def steps(folder: Path) -> list[int]:
    return [checkpoint.step_of(path) for path in checkpoint.all_of(folder)]


def write(folder: Path, keep: KeepSettings, values: dict[int, float | None]) -> None:
    checkpoints = Checkpoints(folder, keep)
    for step, value in values.items():
        checkpoints.write(state(step), value)
    checkpoints.wait()
    checkpoints.close()


def test_a_state_comes_back_to_the_last_bit(tmp_path):
    write(tmp_path, KeepSettings(2, 0, None), {7: None})
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert (found.step, found.schedule, found.counters, found.unlogged) == (
        7, {"last_epoch": 7}, {"counts": {"samples": 7}, "reasons": {}}, {"total": 0.1 + 0.2},
    )  # fmt: skip
    assert torch.equal(found.model["a"], state(7).model["a"])


def test_the_last_the_best_and_the_spared_stay(tmp_path):
    values = {10: 3.0, 20: 1.0, 30: 2.0, 40: 4.0, 50: None, 60: 5.0}
    write(tmp_path, KeepSettings(last=2, best=1, every=30), values)
    assert steps(tmp_path) == [20, 30, 50, 60]


def test_what_is_best_is_known_after_a_restart(tmp_path):
    keep = KeepSettings(last=1, best=2, every=None)
    write(tmp_path, keep, {10: 3.0, 20: 1.0})
    again = Checkpoints(tmp_path, keep)
    assert again.is_among_the_best(2.0)
    assert not again.is_among_the_best(3.5)
    assert not again.is_among_the_best(float("nan"))
    write(tmp_path, keep, {30: 2.0, 40: 9.0})
    assert steps(tmp_path) == [20, 30, 40]


@pytest.mark.parametrize("damage", ["cut", "flipped", "renamed", "empty"])
def test_a_damaged_file_is_left_out_and_the_one_before_is_used(tmp_path, caplog, damage):
    write(tmp_path, KeepSettings(3, 0, None), {10: None, 20: None})
    newest = checkpoint.all_of(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    if damage == "cut":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    elif damage == "renamed":
        newest.rename(newest.with_name("step-00000020-0123456789abcdef.ckpt"))
    else:
        newest.write_bytes(b"")
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 10
    assert "its checksum differs" in caplog.text
    checkpoint.all_of(tmp_path)[0].write_bytes(b"")
    with pytest.raises(InputError, match="none of the checkpoints"):
        checkpoint.newest(tmp_path)


def test_training_does_not_wait_for_the_disk_and_a_kill_in_mid_write_costs_only_that_file(tmp_path, monkeypatch):
    write(tmp_path, KeepSettings(2, 0, None), {10: None})
    save, going_on = torch.save, threading.Event()

    def slow(content, file):
        save(content, file)
        assert going_on.wait(20)

    monkeypatch.setattr(torch, "save", slow)
    checkpoints = Checkpoints(tmp_path, KeepSettings(1, 0, None))
    checkpoints.write(state(20))  # comes back at once
    found = checkpoint.newest(tmp_path)  # what a process would find that starts after a kill at this moment
    assert found is not None
    assert found.step == 10
    going_on.set()
    checkpoints.wait()
    checkpoints.close()
    assert steps(tmp_path) == [20]
    assert not list(tmp_path.glob("*.part"))


def test_a_write_that_failed_is_told_at_the_next_one_and_older_files_stay(tmp_path, monkeypatch):
    write(tmp_path, KeepSettings(1, 0, None), {10: None})
    save = torch.save

    def full(content, file):
        save(content, file)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    checkpoints = Checkpoints(tmp_path, KeepSettings(1, 0, None))
    checkpoints.write(state(20))
    with pytest.raises(RunError, match="step 20 cannot be written: No space left on device; free some space"):
        checkpoints.write(state(30))
    checkpoints.close()
    assert steps(tmp_path) == [10]
    assert not list(tmp_path.glob(".*"))


def test_what_does_not_train_is_recognised_and_not_stored():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    before = checkpoint.fingerprint(model)
    with torch.no_grad():
        model[1].weight += 1
    assert checkpoint.fingerprint(model) == before
    with torch.no_grad():
        model[0].bias[1] += 1e-3
    assert checkpoint.fingerprint(model) != before


def test_the_fingerprint_of_a_table_of_tens_of_millions_of_values_looks_at_its_last_one():
    """SmolLM2's table has 28,311,552; places in float32 would lie beyond its end."""
    table = torch.nn.Embedding(1, 1)
    table.weight = torch.nn.Parameter(torch.zeros(28_311_552, 1), requires_grad=False)
    before = checkpoint.fingerprint(table)
    table.weight[-1] = 1.0
    assert checkpoint.fingerprint(table) != before
