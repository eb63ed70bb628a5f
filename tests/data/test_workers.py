"""Processes that read data: what they load, and what becomes of one that stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import islice

import pytest

from tests.data.test_rows import Listed, rows, sample
from tests.prepared import ROOT
from vlm.contracts.vision import FixedCount, VisionSpec
from vlm.data.loader import Rows, Steps, end_workers
from vlm.data.plan import Planner
from vlm.data.processor import Processor
from vlm.data.template import Template
from vlm.data.tokens import Characters
from vlm.data.views import BlockMean

HEAVY = ("lightning", "transformers", "hydra", "wandb")


class Confessing(Processor):
    """Collates batches whose keys are the large libraries that its process has loaded, and its process number."""

    def collate(self, examples, token_budget=None, pack=False):
        batch = super().collate(examples, token_budget, pack)
        return replace(batch, keys=(str(os.getpid()), *(name for name in HEAVY if name in sys.modules)))


def confessing() -> Processor:
    template = Template("<bos>", "<eos>", prompt=True, max_tokens=8)
    return Confessing(BlockMean(14), Characters("abc ?", 7), template, VisionSpec(4, FixedCount(3)), positions=64)


@pytest.fixture
def listed() -> Rows:
    return rows(confessing(), Listed([sample("", "ab", key=str(row)) for row in range(20)]))


def test_data_workers_load_no_trainer_and_keep_the_order(listed):
    import lightning  # noqa: F401 - as in a run

    planner = Planner(4, 2)
    alone = list(islice(Steps(listed, planner, 3, 0, workers=0, timeout_s=60, pack=False), 3))
    helped = list(islice(Steps(listed, planner, 3, 0, workers=2, timeout_s=60, pack=False), 3))
    for one, other in zip(alone, helped, strict=True):
        assert len(one.micro_batches) == len(other.micro_batches) == 2
        for first, second in zip(one.micro_batches, other.micro_batches, strict=True):
            assert (first.batch.ids == second.batch.ids).all()
            assert (first.batch.pictures == second.batch.pictures).all()
            number, *heavy = second.batch.keys
            assert int(number) != os.getpid()
            assert heavy == []
    end_workers()


STRIKE = """
import os, signal, sys, time
from itertools import islice
from tests.data.test_rows import Listed, rows, sample
from tests.data.test_workers import confessing
from vlm.data.loader import Loader, end_workers

listed = rows(confessing(), Listed([sample("", "ab", key=str(row)) for row in range(20)]))
batches = iter(Loader(listed, [[0, 1]] * 1000, workers=1, timeout_s=30))  # its start counts too
worker = int(next(batches).batch.keys[0])
begin = time.monotonic()
try:
    os.kill(worker, int(sys.argv[1]))
    list(islice(batches, 100))
except RuntimeError as error:
    print(error, f"after {time.monotonic() - begin:.0f} s", flush=True)
    end_workers()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "message", "seconds"),
    [(signal.SIGKILL, "DataLoader worker", 10), (signal.SIGSTOP, "timed out after 30", 40)],
)
def test_a_worker_that_dies_or_stands_still_is_an_error_in_time(sent, message, seconds):
    """In a process of its own: torch tells a worker's death by a signal, at any later moment."""
    command = [sys.executable, "-c", STRIKE, str(int(sent))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert message in done.stdout, done.stderr
    assert int(done.stdout.rpartition("after ")[2].removesuffix(" s\n")) <= seconds
