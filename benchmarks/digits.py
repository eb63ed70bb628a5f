"""Training on digits as purevlm does, beside NumPy with one picture a step: pictures per CPU second, in turn, one run.

python -m benchmarks.digits       (needs the prepared digits: make data SOURCE=mnist)

Ours is the real run of experiment=purevlm (loader with its rows in memory, Lightning, logging, validations,
checkpoints), and its bare step. The NumPy programs do the published recipe's work; that they do the same work is
checked first, by the losses of our experiment=purevlm_original from the same weights.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vlm
from benchmarks.paired import cpu_seconds
from benchmarks.plain_digits import PlainDigits
from benchmarks.real import train_beside
from vlm.build import compose
from vlm.data.shards import ShardSet
from vlm.losses.language import language_loss
from vlm.run import train

BATCH, STEPS, WARM, ROUNDS = 64, 500, 150, 5  # of the real run; a round holds one validation and one checkpoint
ROWS = 6400  # training pictures, so that all are in memory after 100 steps
ALONE, AT_BEST, BARE = 150, 1000, 100  # pictures, pictures and steps of the others' turns
COMPARED, TOLERANCE = 20, 1e-6  # first losses that must agree, and how closely


def main() -> None:
    torch.set_num_threads(1)
    data = os.environ.get("VLM_DATA", "data")
    model = vlm.build_model(["experiment=purevlm_original"])
    weights = {name.rpartition(".")[2]: value.detach().numpy() for name, value in model.named_parameters()}
    rows = list(_rows(model, ShardSet(Path(data) / "mnist" / "train"), 500))
    difference = _check(weights, rows)
    print(f"first {COMPARED} losses of NumPy and of our purevlm_original differ by {difference:.1e} at most")

    alone = _epochs(PlainDigits(weights, 7000), rows, ALONE)
    at_best = _epochs(PlainDigits(weights, 7000, whole=True), rows, AT_BEST)
    bare = _bare_step(data)
    rates: dict[str, list[float]] = {"bare step": [], "NumPy, public form": [], "NumPy, whole arrays": []}

    def turns() -> None:
        for (_, found), work, count in zip(
            rates.items(), (bare, alone, at_best), (BARE * BATCH, ALONE, AT_BEST), strict=True
        ):
            found.append(count / cpu_seconds(work))

    words = ["experiment=purevlm", f"phase.global_batch={BATCH}", f"data.train.mnist.rows=[0,{ROWS}]"]
    taken = train_beside([*words, "data.test.mnist=null"], WARM, STEPS, ROUNDS, turns)
    ours = [STEPS * BATCH / seconds for seconds in taken]
    print(f"{'work':22}{'pictures / cpu s':>17}{'real run against it':>21}   (median, smallest and largest ratio)")
    print(f"{'real run':22}{statistics.median(ours):17.1f}")
    for name, found in rates.items():
        ratios = sorted(own / other for own, other in zip(ours, found, strict=True))
        print(
            f"{name:22}{statistics.median(found):17.1f}{statistics.median(ratios):21.2f}   "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def _rows(model: Any, shards: ShardSet, count: int) -> Iterator[tuple[np.ndarray, list[int]]]:
    for row in range(count):
        example = model.processor.example(shards[row])
        pixels = model.processor.views.finish(torch.stack(example.views)).double().numpy().ravel()
        yield pixels, [id for id in example.ids.tolist() if id >= 0]


def _check(weights: dict[str, np.ndarray], rows: Sequence[tuple[np.ndarray, list[int]]]) -> float:
    """Largest difference of the first losses. Raises: AssertionError if it is not the same work."""
    with tempfile.TemporaryDirectory() as runs, contextlib.redirect_stdout(sys.stderr):
        words = ["experiment=purevlm_original", f"phase.max_steps={COMPARED}", "phase.log_every=1", "phase.samples=1"]
        train(compose([*words, "data.validate.mnist=null", "data.test.mnist=null", f"paths.runs={runs}"]))
        lines = next(Path(runs).rglob("metrics.jsonl")).read_text().splitlines()
    ours = [json.loads(line)["train/loss"] for line in lines]
    for whole in (False, True):
        plain = PlainDigits(weights, COMPARED, whole)
        theirs = [plain.step(*row) for row in rows[:COMPARED]]
        difference = max(abs(own - other) for own, other in zip(ours, theirs, strict=True))
        assert difference < TOLERANCE, f"the losses differ by {difference}: {ours} and {theirs}"
    return difference


def _epochs(plain: PlainDigits, rows: Sequence[tuple[np.ndarray, list[int]]], count: int) -> Callable[[], None]:
    endless = cycle(rows)

    def work() -> None:
        for _ in range(count):
            plain.step(*next(endless))

    return work


def _bare_step(data: str) -> Callable[[], None]:
    model = vlm.build_model(["experiment=purevlm"]).train()
    shards = ShardSet(Path(data) / "mnist" / "train")
    batch = model.processor.collate([model.processor.example(shards[row]) for row in range(BATCH)])
    batch = model.processor.finish(batch, torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.85, 0.99), fused=True)

    def work() -> None:
        for _ in range(BARE):
            loss = language_loss(model(batch).logp, batch)
            optimizer.zero_grad()
            (loss.total / loss.count).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()

    return work


if __name__ == "__main__":
    main()
