"""Several processes for one run on this machine: started together, watched, and ended together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from vlm.contracts.errors import InputError, RunError
from vlm.training.ranks import HEARTBEAT, PARENT, last_beats
from vlm.training.stopping import STOPPED, Stopped

FAREWELL = 10.0  # seconds that the others have to end by themselves, once one has failed
POLL = 0.1


def launch(overrides: Sequence[str], world: int, timeout_s: float) -> None:
    """Run the training command in `world` processes. Signals are passed on; standard output is the first one's.

    Raises: Stopped if they were stopped on request; InputError or RunError, naming the rank, if one failed.
    """
    with tempfile.TemporaryDirectory(prefix="vlm-ranks-") as beats:
        port = _free_port()
        ranks = [_start(overrides, number, world, port, beats) for number in range(world)]
        with _PassedOn(ranks) as passed_on:
            first = _wait_for_failure(ranks, passed_on)
        if first is None:
            if any(process.returncode for process in ranks):  # asked to stop; one that was done before that is done
                raise Stopped
            return
        steps = last_beats(Path(beats), world)
    raise _failure(first, ranks, steps, timeout_s)


def _start(overrides: Sequence[str], number: int, world: int, port: int, beats: str) -> subprocess.Popen[bytes]:
    environment = {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        HEARTBEAT: beats,
        PARENT: str(os.getpid()),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *overrides],
        env=os.environ | environment,
        stdout=None if number == 0 else subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
    )


class _PassedOn:
    """Within it, requests to stop that reach this process reach every rank."""

    def __init__(self, ranks: Sequence[subprocess.Popen[bytes]]) -> None:
        self.ranks = ranks
        self.asked = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> _PassedOn:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        for process in self.ranks:
            if process.poll() is None:
                process.kill()
            process.wait()

    def failed(self) -> list[int]:
        """Ranks that ended in another way than finished or stopped as they were asked to."""
        fine = {None, 0, STOPPED, *((-signal.SIGINT, -signal.SIGTERM) if self.asked else ())}
        return [number for number, process in enumerate(self.ranks) if process.poll() not in fine]

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        for process in self.ranks:
            if process.poll() is None:
                process.send_signal(number)


def _wait_for_failure(ranks: Sequence[subprocess.Popen[bytes]], passed_on: _PassedOn) -> int | None:
    """Until all have ended well, or one has failed and the others had time to say what they think of it.

    Returns: the rank that failed first; None if none did.
    """
    first: int | None = None
    deadline = float("inf")
    while any(process.poll() is None for process in ranks) and time.monotonic() < deadline:
        failed = passed_on.failed()
        if failed and first is None:
            first, deadline = failed[0], time.monotonic() + FAREWELL
        time.sleep(POLL)
    return first if first is not None else next(iter(passed_on.failed()), None)


def _failure(
    first: int, ranks: Sequence[subprocess.Popen[bytes]], steps: Sequence[int | None], timeout_s: float
) -> InputError | RunError:
    """What to say. A rank that others waited for in vain is the one that stands still, not the one that gave up."""
    code = ranks[first].returncode
    if code == 2:
        return InputError(f"rank {first} refused the run; what it said stands above")
    at = "before its first step" if steps[first] is None else f"after step {steps[first]}"
    if code < 0:
        what = f"rank {first} was killed by {signal.Signals(-code).name} {at}"
    else:
        what = f"rank {first} failed {at}; what it said stands above"
        silent = [
            number for number, process in enumerate(ranks) if number != first and process.returncode == -signal.SIGKILL
        ]
        if silent:
            named = ", ".join(f"rank {number} (last finished step: {steps[number]})" for number in silent)
            what += f"; {named} gave no sign of life (hardware.timeout_s={timeout_s:g}) and was ended"
    return RunError(f"{what}; the other processes were stopped, and the same command goes on from the last checkpoint")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
