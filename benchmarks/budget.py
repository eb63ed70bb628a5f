"""Keural's encoder against its token budget: latency and memory, as ratios to 1024 tokens and to a plain ViT.

python -m benchmarks.budget

The plain ViT has torch's own blocks of the same sizes over 1024 patches of 8 x 8 pixels. Latency is CPU seconds on one
thread, in turn in one process; memory is what a process of its own needed at its most above what it held before.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.paired import cpu_seconds

SIDE, PICTURES, ROUNDS = 256, 4, 3
WIDTH, LAYERS, HEADS = 384, 12, 6
BUDGETS = (64, 256, 1024)
WAYS = (*(f"{budget} tokens" for budget in BUDGETS), "plain ViT")
WORKS = ("forward", "and backward")


def main() -> None:
    # Memory first: a process begins with the peak of the one that started it, which is small until it imports torch.
    memory = {work: {way: peak_mb(way, work) for way in WAYS} for work in WORKS}
    seconds = {work: latencies(work == WORKS[1]) for work in WORKS}
    print(f"{PICTURES} pictures of {SIDE} x {SIDE}, width {WIDTH}, {LAYERS} blocks, float32, one thread")
    print(f"medians of {ROUNDS}; ratios to {WAYS[-2]} and to the {WAYS[-1]}, smallest and largest of the rounds behind")
    for work in WORKS:
        print(
            f"{work:14}{'cpu s':>8}{'to 1024':>9}{'':14}{'to ViT':>9}{'':14}{'peak MB':>9}{'to 1024':>9}{'to ViT':>8}"
        )
        for way in WAYS:
            against = "".join(_ratios(seconds[work], way, other) for other in WAYS[-2:])
            mb = memory[work][way]
            shares = "".join(
                f"{mb / memory[work][other]:{size}.2f}" for other, size in zip(WAYS[-2:], (9, 8), strict=True)
            )
            print(f"{way:14}{statistics.median(seconds[work][way]):8.2f}{against}{mb:9.0f}{shares}")


def latencies(backward: bool) -> dict[str, list[float]]:
    """CPU seconds of each way in each round, the ways in turn."""
    import torch

    torch.set_num_threads(1)
    works = {way: _work(way, backward) for way in WAYS}
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for work in works.values():
        work()  # the first call allocates
    for _ in range(ROUNDS):
        for way, work in works.items():
            found[way].append(cpu_seconds(work))
    return found


def peak_mb(way: str, work: str) -> float:
    """Of one call in a process of its own; gradients included."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.budget", way, work],
        capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return json.loads(done.stdout)


def _measured(way: str, work: str) -> float:
    small = _work("64 tokens", backward=True, pictures=1, width=32, layers=1, heads=1)
    small()  # libraries load what they need
    call = _work(way, work == WORKS[1])
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


def _work(
    way: str, backward: bool, pictures: int = PICTURES, width: int = WIDTH, layers: int = LAYERS, heads: int = HEADS
) -> Callable[[], None]:
    import torch

    from vlm.contracts.vision import ViewSpec
    from vlm.models.encoders.pyramid import Pyramid
    from vlm.models.encoders.vit import ViT

    torch.manual_seed(0)
    views, shape = torch.randn(pictures, 3, SIDE, SIDE), ViewSpec(3, SIDE, SIDE)
    model: Any = ViT(shape, 8, width, layers, heads, 4 * width)
    budget = None
    if way != WAYS[-1]:
        model = Pyramid(shape, 256, width, layers, heads, [2, 2, 2, 1], "learned", 0.3, 2.0, 0.0)
        budget = int(way.split()[0])

    def work() -> None:
        with torch.set_grad_enabled(backward):
            tokens = model(views, budget).tokens
            if backward:
                tokens.square().mean().backward()
                model.zero_grad()

    return work


def _ratios(seconds: dict[str, list[float]], way: str, other: str) -> str:
    ratios = [ours / theirs for ours, theirs in zip(seconds[way], seconds[other], strict=True)]
    return f"{statistics.median(ratios):9.2f} {f'({min(ratios):.2f} to {max(ratios):.2f})':13}"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(_measured(*sys.argv[1:])))
    else:
        main()
