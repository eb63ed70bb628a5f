"""Run folders as records. What cannot be read is noted as a fault of its run and never stops the rest."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import yaml
from pydantic import TypeAdapter, ValidationError

from vlm.contracts.errors import InputError

MARKS = ("status.json", "config.yaml", "command.txt", "metrics.jsonl")  # any of them makes a folder a run folder
Content = TypeVar("Content")


@dataclass(frozen=True)
class Delivered:
    """What one set of a mix gave: samples, and its share of all samples."""

    samples: int
    share: float


@dataclass(frozen=True)
class Totals:
    """What a run has read. skipped: rows left out, by reason; cut: answers that were shortened."""

    samples: int = 0
    tokens: int = 0
    rows_read: int = 0
    skipped: int = 0
    cut: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    delivered: dict[str, Delivered] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """status.json; "unreadable" stands for one that is missing or broken. seconds: wall clock of the run."""

    state: Literal["running", "finished", "failed", "stopped", "unreadable"]
    step: int = 0
    max_steps: int | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: str | None = None
    seconds: float | None = None
    started: str | None = None
    data: Totals = field(default_factory=Totals)


@dataclass(frozen=True)
class DataSet:
    """What a run read of one prepared set."""

    rows: int | None = None
    manifest_sha256: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class DataRecord:
    """data.json. sets: use (train, validate, test) -> name of the set -> what was read.   asked: share of each set."""

    sets: dict[str, dict[str, DataSet]] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """A held-out picture and the model's words. image: name of the PNG beside samples.jsonl, None without a picture."""

    key: str
    image: str | None
    answer: str
    reference: str
    prompt: str = ""


@dataclass(frozen=True)
class Run:
    """One run folder. label: its path below the folder searched.   faults: what could not be read, file name first."""

    path: Path
    label: str
    status: Status
    config: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    versions: dict[str, Any] = field(default_factory=dict)
    data: DataRecord = field(default_factory=DataRecord)
    rows: tuple[dict[str, Any], ...] = ()
    samples: tuple[Sample, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def system(self) -> str:
        """The experiment's name; without a readable config, the name of the folder above."""
        return str(self.config.get("name", self.path.resolve().parent.name))

    @property
    def seed(self) -> int | None:
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) else None

    def metric(self, name: str) -> float | None:
        """The last finite value of a metric: the status knows it, else the log."""
        value = self.status.metrics.get(name)
        if value is not None and math.isfinite(value):
            return value
        _, values = self.series(name)
        return float(values[-1]) if len(values) else None

    def median(self, name: str) -> float | None:
        """Median of a logged value: a slow first step does not pull a speed down."""
        _, values = self.series(name)
        return float(np.median(values)) if len(values) else None

    def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps [n], values [n]) of the finite logged values by step; of two rows of a step the later wins."""
        found = {row["step"]: row[name] for row in self.rows if _is_finite(row.get(name))}
        steps = sorted(found)
        return np.array(steps, dtype=float), np.array([found[step] for step in steps], dtype=float)


def find_runs(folder: Path) -> list[Run]:
    """Every run folder in or below `folder`, by path; inside runs and in hidden folders nothing is searched.

    Raises: InputError if the folder is missing or holds no run.
    """
    if not folder.is_dir():
        raise InputError(f"runs: {folder} is no folder; give one that holds run folders, for example runs=runs")
    runs = []
    for place, below, files in os.walk(folder):
        is_run = any(mark in files for mark in MARKS)
        if is_run:
            runs.append(read_run(Path(place), folder))
        below[:] = [] if is_run else [name for name in below if not name.startswith(".")]
    if not runs:
        raise InputError(
            f"runs: {folder} holds no run folder (a folder with {' or '.join(MARKS)}); "
            "start a run with python -m experiments.train experiment=NAME"
        )
    return sorted(runs, key=lambda run: run.label)


def read_run(path: Path, root: Path) -> Run:
    """One run folder, as far as it can be read. root: the folder that its label is relative to, or the run itself."""
    faults: list[str] = []

    def part(name: str, parse: Callable[[str], Content], absent: Content) -> Content:
        try:
            return parse((path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            faults.append(f"{name}: missing")
        except (OSError, ValueError, yaml.YAMLError) as error:
            faults.append(f"{name}: cannot be read ({_first_line(error)})")
        return absent

    def lines(name: str, kind: TypeAdapter[Content]) -> tuple[Content, ...]:
        good, bad = [], 0
        for line in part(name, str.splitlines, []):
            try:
                good.append(kind.validate_python(json.loads(line)))
            except ValueError:
                bad += 1  # a log that is being written may end in half a line
        if bad:
            faults.append(f"{name}: {bad} {'line' if bad == 1 else 'lines'} cannot be read")
        return tuple(good)

    return Run(
        path=path,
        label=path.relative_to(root).as_posix() if path != root else path.resolve().name,
        status=part("status.json", lambda text: STATUS.validate_python(json.loads(text)), Status("unreadable")),
        config=part("config.yaml", lambda text: MAPPING.validate_python(yaml.safe_load(text)), {}),
        command=part("command.txt", str.strip, ""),
        versions=part("versions.json", lambda text: MAPPING.validate_python(json.loads(text)), {}),
        data=part("data.json", lambda text: DATA.validate_python(json.loads(text)), DataRecord()),
        rows=tuple(row for row in lines("metrics.jsonl", MAPPING) if _is_finite(row.get("step"))),
        samples=lines("samples/samples.jsonl", SAMPLE) if (path / "samples").is_dir() else (),
        faults=tuple(faults),  # last: the lines above fill it
    )


STATUS, DATA, SAMPLE = TypeAdapter(Status), TypeAdapter(DataRecord), TypeAdapter(Sample)
MAPPING = TypeAdapter(dict[str, Any])


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
    return str(error).partition("\n")[0]
