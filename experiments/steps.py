"""Commands one after the other, each in a process of its own: printed, timed, stopped together."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from experiments.ledger import Ledger
from vlm.training.stopping import STOPPED

PYTHON = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl


class Failed(Exception):
    """A step that ended with another exit code than 0. code: its own, negative if a signal ended it."""

    def __init__(self, name: str, code: int) -> None:
        self.name, self.code = name, code
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        super().__init__(f"{name} {how}; what it said stands above")

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:  # an exception is pickled by its message alone
        return type(self), (self.name, self.code)


class Steps:
    """Commands in order, with the seconds of each."""

    def __init__(self) -> None:
        self.ledger = Ledger()

    def step(
        self,
        name: str,
        module: str,
        *words: str,
        stdout: IO[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """One command of ours; its standard output goes to ours, or to a file.

        Raises: Failed if it fails, KeyboardInterrupt once it has stopped on request.
        """
        say(f"\n== {name}\n{shlex.join([PYTHON, '-m', module, *words])}")
        with self.ledger.part(name) as notes:
            code = run([sys.executable, "-m", module, *words], stdout, environment)
            if code:
                notes.append(f"exit code {code}")
        if code == STOPPED:
            raise KeyboardInterrupt
        if code:
            raise Failed(name, code)


def run(command: Sequence[str], stdout: IO[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """The exit code of a command that gets each of our signals once, also when a terminal sends them to everybody.

    A request to stop that reaches us is a request to stop all: the code is then 75, also if the command was done before.
    """
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []
    asked = False

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if process is None:
            early.append(number)
        else:
            _send(process, number)

    # A command that is deaf to one of them, as nohup makes it, stays so.
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, forward) for number in heard}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            env=None if environment is None else os.environ | environment,
            process_group=0,
            preexec_fn=_dies_with(os.getpid()),
        )
        for number in early:
            _send(process, number)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    fine = (0, -signal.SIGINT, -signal.SIGTERM)  # it had not begun to listen, or had nothing left to stop
    return STOPPED if asked and code in fine else code


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    """A terminal that goes away is a request to stop like any other: training saves on SIGTERM, not on SIGHUP."""
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.killpg(process.pid, signal.SIGTERM if number == signal.SIGHUP else number)


def _dies_with(parent: int) -> Callable[[], None] | None:
    """Asks the system to send SIGTERM to the command when we are killed, so that it saves, and never goes on unseen."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: little may happen between fork and exec

    def in_child() -> None:
        prctl(DIE_WITH_PARENT, signal.SIGTERM)
        if os.getppid() != parent:  # killed meanwhile
            os._exit(STOPPED)

    return in_child


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
