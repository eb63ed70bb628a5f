"""Log-probabilities of targets under a large vocabulary: whole logits, our chunks, and torch's fused loss.

python -m benchmarks.head

Each measurement is a process of its own, the ways in turn, forward and backward on one thread; memory is what a
process needed at its most above what it held before, gradients included.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS, WIDTH, VOCABULARY, ROUNDS = 2048, 256, 65_536, 3
WAYS = ("plain", "ours", "linear_cross_entropy")


def main() -> None:
    measured: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.head", way]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
            measured[way].append(json.loads(done.stdout))
    print(f"{ROWS} targets, width {WIDTH}, vocabulary {VOCABULARY}, float32; medians of {ROUNDS}, ratios to plain")
    print(f"{'way':22}{'peak MB':>9}{'ratio':>7}{'cpu s':>8}{'ratio':>7}{'loss':>12}{'gradient':>12}")
    plain = {key: _median(measured["plain"], key) for key in ("mb", "seconds")}
    for way, runs in measured.items():
        mb, seconds = _median(runs, "mb"), _median(runs, "seconds")
        print(
            f"{way:22}{mb:9.0f}{mb / plain['mb']:7.2f}{seconds:8.2f}{seconds / plain['seconds']:7.2f}"
            f"{runs[0]['loss']:12.3f}{runs[0]['gradient']:12.5f}"
        )


def measure(way: str) -> dict[str, float]:
    """Peak memory and CPU seconds of one forward and backward; the loss and the gradients' norm, to compare."""
    import torch

    torch.manual_seed(0)
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
    hidden = torch.randn(1, ROWS, WIDTH, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (1, ROWS))
    work = _work(way, head)
    work(hidden[:, :2], targets[:, :2]).backward()  # libraries load what they need
    head.zero_grad()
    hidden.grad = None
    before, begin = _now_mb(), time.process_time()
    loss = work(hidden, targets)
    loss.backward()
    seconds, peak = time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert hidden.grad is not None
    assert head.weight.grad is not None
    gradient = float(hidden.grad.norm() + head.weight.grad.norm())
    return {"mb": peak - before, "seconds": seconds, "loss": float(loss.detach()) / ROWS, "gradient": gradient}


def _work(way: str, head: Any) -> Callable[..., Any]:
    import torch

    from vlm.models.llms.head import chunk_rows, token_logp

    def plain(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        scores = head(hidden).flatten(0, 1)
        return torch.nn.functional.cross_entropy(scores, targets.flatten(), reduction="sum")

    def ours(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return -token_logp(hidden, targets, head).sum()

    def fused(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk_rows(VOCABULARY))
        flat = hidden.flatten(0, 1)
        return torch.nn.functional.linear_cross_entropy(
            flat, head.weight, targets.flatten(), reduction="none", options=options
        ).sum()

    ways: dict[str, Callable[..., torch.Tensor]] = {"plain": plain, "ours": ours, "linear_cross_entropy": fused}
    return ways[way]


def _now_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _median(runs: list[dict[str, float]], key: str) -> float:
    return statistics.median(run[key] for run in runs)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
