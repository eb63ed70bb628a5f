"""How long an encoder takes for one picture, and on what."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def pass_times(encoder: Any, view: Tensor, budgets: Sequence[int | None], repeats: int) -> list[list[float]]:
    """Seconds of each pass over one picture, by budget: of a CPU over all its threads, of a device by its own clock.

    view [1, C, H, W].   The budgets are timed in turn, so that what disturbs the machine for a while meets all of them;
    a first pass of each is not counted.
    """
    found: list[list[float]] = [[] for _ in budgets]
    for number in range(repeats + 1):
        for spent, budget in zip(found, budgets, strict=True):
            seconds = _on_device(encoder, view, budget) if view.is_cuda else _on_cpu(encoder, view, budget)
            if number:
                spent.append(seconds)
    return found


def machine(device: str) -> str:
    """In words: the processor with its threads, or the device, and the version of torch."""
    if device != "cpu":
        return f"{torch.cuda.get_device_name()}, float32, torch {torch.__version__}"
    threads = torch.get_num_threads()
    words = f"{threads} thread{'s' if threads > 1 else ''} of {os.cpu_count()} CPUs"
    return f"{_processor()}, {words}, float32, torch {torch.__version__}"


def _on_cpu(encoder: Any, view: Tensor, budget: int | None) -> float:
    began = time.process_time()  # what other processes take is not counted
    encoder(view, budget)
    return time.process_time() - began


def _on_device(encoder: Any, view: Tensor, budget: int | None) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    encoder(view, budget)
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    if file.is_file():
        for line in file.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()
