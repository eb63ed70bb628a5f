"""One self-contained page about the runs of a folder: nothing in it is fetched from anywhere."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vlm.contracts.writing import write_whole
from vlm.reporting.curves import STYLES
from vlm.reporting.figures import figures, guards
from vlm.reporting.groups import Group, group_runs
from vlm.reporting.pictures import thumbnails
from vlm.reporting.runs import DataSet, Run, find_runs

PICTURES = 16  # shown of a group
STATES = ("finished", "running", "stopped", "failed", "unreadable")


def write_report(folder: Path, out: Path) -> Path:
    """Reads every run in `folder` and writes the page; a page that was there is replaced in one step.

    Raises: InputError if there is no run; RunError if `out` cannot be written.
    """
    page = render(find_runs(folder), folder.resolve().name)
    write_whole(out, [page], "choose another file with out=FILE")
    return out


def render(runs: Sequence[Run], name: str) -> str:
    """The page as text. name: of the folder that holds the runs."""
    groups = group_runs(runs)
    systems: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        systems[group.system].append(group)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            name=name,
            title=", ".join(system for system in systems if any(group.runs[0].config for group in systems[system]))
            or name,
            systems=systems,
            groups=groups,
            runs=runs,
            states=_states(runs),
            seconds=sum(run.status.seconds or 0.0 for run in runs),
            unfinished=[run for run in runs if run.status.state != "finished"],
            warnings=[(group, text) for group in groups for text in group.warnings()],
            data=_data(runs),
            skipped=sum(run.status.data.skipped for run in runs),
            figures={system: list(figures(system, members)) for system, members in systems.items()},
            guards={system: guards(members) for system, members in systems.items()},
            pictures=[
                (group, run, seen)
                for group in groups
                for run in group.counted[:1]
                if (seen := thumbnails(run, PICTURES))
            ],
            environments=_environments(runs),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vlm.reporting", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        number=lambda value: f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}",
        signed=lambda value: f"{value:+.3f}".replace("-", "\u2212"),
        percent=lambda value: f"{100 * value:.1f}",
        duration=_duration,
        steps=_steps,
        states=_states,
    )
    environment.globals.update(line_styles=STYLES)
    return environment


def _states(runs: Iterable[Run]) -> list[tuple[str, int]]:
    counts = Counter(run.status.state for run in runs)
    return [(state, counts[state]) for state in STATES if counts[state]]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _steps(runs: Sequence[Run]) -> str:
    """5,532, or 1,200 of 5,532 of runs that are on their way."""
    steps = sorted({run.status.step for run in runs})
    text = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    goal = max(run.status.max_steps or 0 for run in runs)
    return text if goal <= steps[0] else f"{text} of {goal:,}"


def _data(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """A row for each prepared set: its name, licence, splits (use, what was read of it), the systems that read it."""
    splits: dict[tuple[str, str | None], dict[tuple[str, DataSet], None]] = defaultdict(dict)
    systems: dict[tuple[str, str | None], dict[str, None]] = defaultdict(dict)
    for run in runs:
        for use, sets in run.data.sets.items():
            for name, read in sets.items():
                splits[name, read.license][use, read] = None
                systems[name, read.license][run.system] = None
    return [
        {"name": name, "license": license, "splits": list(found), "systems": list(systems[name, license])}
        for (name, license), found in splits.items()
    ]


def _environments(runs: Iterable[Run]) -> list[tuple[dict[str, str], list[Run]]]:
    """Each set of versions with the runs that had it."""
    found: dict[tuple[tuple[str, str], ...], list[Run]] = defaultdict(list)
    for run in runs:
        if run.versions:
            found[tuple(_flat(run.versions))].append(run)
    return [(dict(versions), members) for versions, members in found.items()]


def _flat(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", str(value)
