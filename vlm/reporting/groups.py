"""Runs that differ only by seed belong together; what else differs names the group."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vlm.evaluation.intervals import mean_interval
from vlm.reporting.runs import Run

# What says where and how often, not what: two runs that differ only here answer the same question.
INCIDENTAL = ("seed", "paths", "logging", "resume")
Z95 = 1.96  # normal quantile of a 95 % interval
BLIND = "this model does not use its pictures"


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; low and high are None where there is none. values: one a seed."""

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class VisionGain:
    """Loss with shuffled pictures minus loss with the right ones, nats a token, and its standard error."""

    gain: float
    error: float

    @property
    def is_shown(self) -> bool:
        return self.gain - Z95 * self.error > 0

    @property
    def verdict(self) -> str:
        if self.is_shown:
            return "uses its pictures"
        return "does not use its pictures" if self.gain <= 0 else "not shown to use its pictures"


@dataclass(frozen=True)
class Group:
    """Runs of one question, by seed. differs: config key -> value, where the groups of a system are not alike."""

    system: str
    differs: dict[str, str]
    runs: tuple[Run, ...]

    @property
    def label(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.differs.items()) or self.system

    @cached_property
    def counted(self) -> tuple[Run, ...]:
        """The runs that its numbers are taken from: the finished ones; while there are none, all of them."""
        return tuple(run for run in self.runs if run.status.state == "finished") or self.runs

    @property
    def is_finished(self) -> bool:
        return any(run.status.state == "finished" for run in self.runs)

    def values(self, name: str) -> tuple[float, ...]:
        return tuple(value for run in self.counted if (value := run.metric(name)) is not None)

    def estimate(self, name: str) -> Estimate | None:
        """Mean and Student-t interval over seeds; one seed has no interval."""
        values = self.values(name)
        if not values:
            return None
        mean, low, high = mean_interval(values)
        return Estimate(mean, *((low, high) if math.isfinite(low) else (None, None)), values)

    def proportion(self, name: str) -> Estimate | None:
        """As `estimate`, within 0..1; one seed has the interval over answers that its run recorded."""
        found = self.estimate(name)
        if found is None:
            return None
        if found.low is not None and found.high is not None:
            return Estimate(found.mean, max(found.low, 0.0), min(found.high, 1.0), found.values)
        # A run records its interval beside the score; with several seeds the spread over seeds is the wider truth.
        low, high = (next(iter(self.values(f"{name}_{end}")), None) for end in ("low", "high"))
        return Estimate(found.mean, low, high, found.values)

    def vision_gain(self) -> VisionGain | None:
        """Mean over seeds. The seeds see the same pictures, so their errors are not averaged away."""
        pairs = [(run.metric("val/vision_gain"), run.metric("val/vision_gain_se")) for run in self.counted]
        known = [(gain, math.inf if error is None else error) for gain, error in pairs if gain is not None]
        if not known:
            return None
        gains, errors = zip(*known, strict=True)
        return VisionGain(math.fsum(gains) / len(gains), math.fsum(errors) / len(errors))

    def speed(self) -> float | None:
        """Samples a second, the mean of the runs' medians."""
        return _mean([run.median("perf/samples_per_s") for run in self.counted])

    def seconds(self) -> float | None:
        """Wall clock of a run."""
        return _mean([run.status.seconds for run in self.counted])

    def warnings(self) -> list[str]:
        """What its runs warned of, each once, and that the pictures are not used if no run said so itself."""
        found = list(dict.fromkeys(text for run in self.runs for text in run.status.warnings))
        gain = self.vision_gain()
        if gain is not None and not gain.is_shown and not any(BLIND in text for text in found):
            found.append(f"{BLIND}: the vision gain is not above zero" if gain.gain <= 0 else gain.verdict)
        return found


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups by system, and within a system in the order of their labels."""
    members: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        # Without a config nothing is known to be shared, so such a run stands alone.
        key = json.dumps(_question(run), sort_keys=True, default=str) if run.config else f"{run.system}: {run.label}"
        members[key].append(run)
    systems: dict[str, list[list[Run]]] = defaultdict(list)
    for alike in members.values():
        systems[alike[0].system].append(sorted(alike, key=lambda run: (run.seed is None, run.seed or 0, run.label)))
    groups = []
    for system, sets in systems.items():
        known = [alike for alike in sets if alike[0].config]
        found = differences([_question(alike[0]) for alike in known])
        groups += [Group(system, differs, tuple(alike)) for differs, alike in zip(found, known, strict=True)]
        groups += [Group(system, {"folder": alike[0].label}, tuple(alike)) for alike in sets if not alike[0].config]
    return sorted(groups, key=lambda group: (group.system, group.label))


def differences(configs: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """For each config the keys where the configs are not all alike, with its value.

    A part of another class is told by the name of the class alone, other sets by their names alone: what lies below
    cannot be compared. Parts of one class are still compared with each other.
    """
    found: list[dict[str, str]] = [{} for _ in configs]
    for key, values in _walk("", dict(enumerate(configs))):
        for index, value in values.items():
            found[index][key] = value
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _question(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.config.items() if key not in INCIDENTAL}


def _walk(path: str, nodes: dict[int, Any]) -> Iterator[tuple[str, dict[int, str]]]:
    values = list(nodes.values())
    if all(value == values[0] for value in values):
        return
    if not all(isinstance(value, dict) for value in values):
        yield path, {index: _text(value) for index, value in nodes.items()}
        return
    by_class: dict[Any, dict[int, Any]] = defaultdict(dict)
    for index, value in nodes.items():
        by_class[value.get("_target_")][index] = value
    if len(by_class) > 1:
        yield path, {index: _text(value) for index, value in nodes.items()}
        for alike in by_class.values():
            yield from _walk(path, alike)
        return
    if path and not set.intersection(*(set(value) for value in values)):
        yield path, {index: _text(value) for index, value in nodes.items()}
        return
    for key in dict.fromkeys(key for value in values for key in value):
        yield from _walk(f"{path}.{key}" if path else key, {index: value.get(key) for index, value in nodes.items()})


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return str(value["_target_"]).rpartition(".")[2] if "_target_" in value else ", ".join(value) or "none"
    return json.dumps(value, default=str) if isinstance(value, list | bool | None) else str(value)
