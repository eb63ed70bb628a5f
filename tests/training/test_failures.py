"""What a user reads when memory, a data worker or another process gives out."""

from __future__ import annotations

import pytest
import torch

from vlm.contracts.batch import Batch
from vlm.contracts.errors import BrokenStep, RunError
from vlm.data.loader import Loaded, Step
from vlm.training.failures import explained


def step(rows: int, length: int, views: int) -> Step:
    text = torch.zeros(rows, length, dtype=torch.long)
    pixels = torch.zeros(views, 3, 8, 8)
    batch = Batch(text, text, text, text, text[:, 0], text[:, 0], pixels, text[:0, :2], text[:, 0])
    return Step([Loaded(batch, (0,), (), 0)])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_out_of_memory_names_the_sizes_and_the_knobs(error):
    small, large = step(2, 10, 1), step(4, 900, 6)
    told = explained(error, 60, 7, Step(small.micro_batches + large.micro_batches))
    assert isinstance(told, BrokenStep)
    for words in (
        "step 7: out of memory",
        "4 rows of 900 tokens and 6 views of 3x8x8",
        "hardware.micro_batch",
        "recompute",
    ):
        assert words in str(told)


@pytest.mark.parametrize(
    ("message", "way"),
    [
        ("DataLoader worker (pid 12) is killed by signal: Killed.", "for want of memory"),
        ("DataLoader worker (pid(s) 12) exited unexpectedly", "for want of memory"),
        ("DataLoader timed out after 60 seconds", "hardware.timeout_s=60"),
        ("DataLoader worker (pid 1) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
         "shared memory.", "/dev/shm is too small"),
    ],
)  # fmt: skip
def test_a_data_worker_that_breaks_off_says_what_to_do(message, way):
    told = explained(RuntimeError(message), 60, 7, None)
    assert isinstance(told, RunError)
    assert way in str(told)
    assert "the same command goes on" in str(told)


def test_another_process_that_does_not_answer_is_no_riddle():
    told = explained(RuntimeError("[gloo] Timed out waiting 6000ms for recv operation to complete"), 6, 7, None)
    assert "no answer from another process within hardware.timeout_s=6 s" in str(told)


def test_an_unknown_error_stays_what_it_is():
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert explained(error, 6, 7, None) is error
    known = RunError("step 3: loss nan")
    assert explained(known, 6, 7, None) is known
