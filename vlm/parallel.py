"""Several processes of one evaluation on this machine, each with its share of the questions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from vlm.contracts.errors import RunError
from vlm.training.stopping import STOPPED

PATIENCE = 60  # seconds that a stopped process has to keep its answers


def in_parts(overrides: Sequence[str], processes: int) -> None:
    """The same command as parts 0/n .. n-1/n, side by side. Raises: RunError naming the parts that failed."""
    words = [word for word in overrides if not word.startswith(("processes=", "part="))]
    command = [sys.executable, "-m", "experiments.evaluate", *words]
    started = [
        subprocess.Popen([*command, f"part={number}/{processes}", "logging.progress=false"], stdout=subprocess.DEVNULL)
        for number in range(processes)
    ]
    try:
        codes = [process.wait() for process in started]
    except BaseException:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(PATIENCE)
        raise
    if STOPPED in codes:
        raise KeyboardInterrupt
    failed = [f"{number}/{processes} (exit code {code})" for number, code in enumerate(codes) if code]
    if failed:
        raise RunError(f"part {', '.join(failed)} failed; what was answered is kept, and the same command goes on")
