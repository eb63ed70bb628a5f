"""Sides of a comparison, each a process of its own, that take turns step by step."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.index import resident


def in_turn(module: str, sides: Iterable[str], rounds: int, folder: Path) -> dict[str, dict[str, Any]]:
    """What each side has measured; a side goes on when it is told, so that one works at a time.

    A side is `python -m module side folder`, which prints a line after its first step, one after each of `rounds` more,
    and then what it has measured, as JSON.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with contextlib.ExitStack() as stack:
        processes = {}
        for side in sides:
            command = [sys.executable, "-m", module, side, str(folder)]
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            processes[side] = stack.enter_context(process)
            _answer(process)  # its first step is done
        for _ in range(rounds):
            for process in processes.values():
                _tell(process)
                _answer(process)
        found = {}
        for side, process in processes.items():
            _tell(process)
            found[side] = json.loads(_answer(process))
    return found


def _tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("on\n")
    process.stdin.flush()


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args}: ended without a result; its messages are above")
    return line


class Side:
    """The child's end: `step_done` after each step waits for its turn and starts the clock again."""

    def __init__(self, out: Any) -> None:
        self.out = out
        self.baseline = resident()
        self.seconds: list[float] = []
        self.user: list[float] = []
        self.mb = 0.0
        self._restart()

    def step_done(self) -> None:
        self.seconds.append(time.process_time() - self.begin)
        self.user.append(resource.getrusage(resource.RUSAGE_SELF).ru_utime - self.begin_user)
        self.mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - self.baseline) / 2**20
        self._say("done")
        sys.stdin.readline()
        self._restart()

    def finish(self, loss: float) -> None:
        measured = {"seconds": self.seconds[1:], "user": self.user[1:], "mb": self.mb, "loss": loss}
        self._say(json.dumps(measured))

    def _restart(self) -> None:
        self.begin, self.begin_user = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_utime

    def _say(self, text: str) -> None:
        self.out.write(text + "\n")
        self.out.flush()


@contextlib.contextmanager
def own_output() -> Iterator[Any]:
    """The standard output for the parent alone; what libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        yield out
