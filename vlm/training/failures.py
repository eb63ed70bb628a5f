"""What libraries say when a run breaks, in terms of the run: what happened, how large it was, which key to turn."""

from __future__ import annotations

from typing import Any

import torch

from vlm.contracts.errors import BrokenStep, InputError, RunError
from vlm.data.loader import Step

SAME_COMMAND = "the same command goes on from the last checkpoint"
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
WORKER = ("DataLoader worker", "DataLoader timed out")
SHARED_MEMORY = ("bus error", "shared memory")
LOST_RANK = (
    "gloo",
    "nccl",
    "process group",
    "processgroup",
    "tcpstore",
    "connection closed",
    "connection reset",
    "timed out waiting",
    "timed out after",
)


def explained(error: Exception, timeout_s: float, step: int, batch: Step | None) -> Exception:
    """The same error as a RunError that a user can act on, if it is one of the known kinds; else itself.

    batch: what was being worked off when it happened, for the sizes that were too large.
    """
    text = str(error).lower()
    first_line = str(error).partition("\n")[0]
    if isinstance(error, RunError):
        return error
    if isinstance(error, InputError):  # the run has begun, so nothing was refused
        return RunError(str(error))
    if not isinstance(error, RuntimeError | OSError | MemoryError):
        return error
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in text for words in OUT_OF_MEMORY):
        return BrokenStep(
            f"step {step}: out of memory{f' with {sizes(batch)}' if batch else ''} ({first_line}); lower "
            "hardware.micro_batch or hardware.micro_tokens, or set hardware.recompute=true; no batch is left out, and "
            f"{SAME_COMMAND}"
        )
    if any(words.lower() in text for words in (*WORKER, *SHARED_MEMORY)):
        if any(words in text for words in SHARED_MEMORY):
            way = "/dev/shm is too small for the batches under way: mount a larger one, or lower hardware.workers"
        elif "timed out" in text:
            way = f"it gave no answer for hardware.timeout_s={timeout_s:g} s: look at the storage, or raise the limit"
        else:
            way = "something killed it, mostly the system for want of memory: lower hardware.workers or data.cache_gb"
        return RunError(f"step {step}: a data worker broke off ({first_line}); {way}; {SAME_COMMAND}")
    if any(words in text for words in LOST_RANK):
        return RunError(
            f"step {step}: no answer from another process within hardware.timeout_s={timeout_s:g} s or "
            f"its connection broke ({first_line}); what that process said stands above; {SAME_COMMAND}"
        )
    return error


def sizes(step: Step) -> str:
    """Of the largest micro-batch: what decides its memory."""

    def size(loaded: Any) -> int:
        return loaded.batch.ids.numel() + loaded.batch.views.numel()

    batch = max(step.micro_batches, key=size).batch
    rows, length = batch.ids.shape
    views = "x".join(map(str, batch.views.shape[1:]))
    return f"{rows} rows of {length} tokens and {batch.views.shape[0]} views of {views}"
