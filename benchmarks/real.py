"""A training run as a user starts it - loader, Lightning, logging, checkpoints - with another program's turns between."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from vlm.build import compose
from vlm.phases.base import Phase
from vlm.run import train
from vlm.training.sums import Sums


def train_beside(
    words: Sequence[str], warm: int, steps: int, rounds: int, between: Callable[[], object] = lambda: None
) -> list[float]:
    """CPU seconds of `steps` optimizer steps with all that happens around them, `rounds` times after `warm` steps.

    A round begins where the step before it ended; without a step before it (warm=0) the first holds the start of the run.
    words: of experiments.train; the number of steps and where the run lies are added.
    between: called after every round, and not counted.
    """
    taken: list[float] = []
    begin = time.process_time()
    step_of_phase = Phase._take_step

    def take(phase: Any, sums: Sums) -> None:
        nonlocal begin
        step_of_phase(phase, sums)
        if phase.step == warm:
            begin = time.process_time()
        elif phase.step > warm and (phase.step - warm) % steps == 0:
            taken.append(time.process_time() - begin)
            between()
            begin = time.process_time()

    given = [f"phase.max_steps={warm + steps * rounds}", "hardware.threads=1"]
    with (
        tempfile.TemporaryDirectory() as runs,
        mock.patch.object(Phase, "_take_step", take),
        contextlib.redirect_stdout(sys.stderr),  # the run's folder, which is gone afterwards
    ):
        train(compose([*words, *given, f"paths.runs={runs}"]))
    return taken
