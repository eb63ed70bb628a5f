"""What a pipeline needs before its first phase starts: data or their preparations, folders that are free, disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from vlm.benchmarks import prepared_benchmark
from vlm.carried import misfits
from vlm.contracts.errors import ConfigError, InputError, Mismatch, Problem
from vlm.contracts.pipeline import PipelineConfig
from vlm.contracts.places import config_dir
from vlm.contracts.settings import EvaluateConfig
from vlm.contracts.vision import refuse_budget
from vlm.data import sources
from vlm.pipeline import Plan, PlannedPhase
from vlm.run import refuse_unpaired, refuse_watch, refuse_world
from vlm.shapes import shapes
from vlm.training.folder import read_object
from vlm.wording import no_choice

MANIFEST = "manifest.json"  # of a prepared split that is whole
COMMANDS = {"forms": "forms", "language_model": "models"}  # of data_prep, beside its sets -> folder that they write to


def refuse(plan: Plan) -> list[list[str]]:
    """Everything that would end a later phase, told before the first one starts.

    Returns: the words of the preparations that are to run first.
    Raises: ConfigError with all problems, each with its phase.
    """
    unknown = list(_unknown_sources(plan.settings.prepare))
    if unknown:
        raise ConfigError(unknown)
    preparable = {place(words): words for words in plan.settings.prepare}
    missing: dict[str, None] = {}  # places that a preparation will fill, in order
    problems = list(_unfinished(plan))
    for phase in plan.phases:
        problems += _data(phase, phase in plan.left, preparable, missing)
    for phase in plan.left:
        problems += _taken(phase)
        problems += _told(phase, lambda phase=phase: refuse_world(phase.settings.hardware))
        problems += _told(phase, lambda phase=phase: refuse_watch(phase.settings))
        problems += misfits(phase, {other.name: other for other in plan.phases})
    if plan.evaluates and plan.scoring is not None:
        problems += _benchmarks(plan.scoring, preparable, missing)
        problems += _budget(plan, plan.scoring.token_budget)
    if plan.left:
        problems += _disk(plan)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))  # a set is missed once, whatever a phase wants of it
    return [words for name, words in preparable.items() if name in missing]


def language_models(settings: PipelineConfig, problems: Sequence[Problem]) -> list[list[str]]:
    """Preparations of language models without whose folders no phase can be composed, if nothing else is wrong."""
    if any(not problem.key.endswith("llm.path") for problem in problems):
        return []
    return [words for words in settings.prepare if words[0] == "language_model"]


def place(words: Sequence[str]) -> str:
    """The folder under paths.data that a preparation fills."""
    return COMMANDS.get(words[0], words[0].removeprefix("source="))


def _unknown_sources(prepare: Sequence[Sequence[str]]) -> Iterator[Problem]:
    names = sorted(path.stem for path in (config_dir() / "source").glob("*.yaml"))
    for words in prepare:
        if words[0] in COMMANDS:
            continue
        if not words[0].startswith("source="):
            yield Problem("prepare", f"{words[0]!r} must be source=NAME, or one of {', '.join(COMMANDS)}")
        elif place(words) not in names:
            yield Problem("prepare", no_choice("source", place(words), names))


def _unfinished(plan: Plan) -> Iterator[Problem]:
    """Phases in front of `from`."""
    first = plan.phases.index(plan.asked[0])
    for phase in plan.phases[:first]:
        if not phase.is_finished:
            state = phase.status.get("state", "never started")
            message = f"{phase.name} must be finished before {plan.asked[0].name}, and {phase.folder} is {state}"
            yield Problem("from", f"{message}; leave from= out, and it is trained first")


def _data(
    phase: PlannedPhase, is_left: bool, preparable: Mapping[str, Sequence[str]], missing: dict[str, None]
) -> Iterator[Problem]:
    """Of a finished phase only whether the data are still those that it was trained on, if they are there."""
    settings, root = phase.settings.data, phase.settings.paths.data
    waits = False
    for uses in (settings.train, settings.validate, settings.test):
        for name, use in uses.items():
            if use is None or use.split is None or (Path(root) / name / use.split / MANIFEST).is_file():
                continue
            waits = True
            if is_left and name in preparable:
                missing[name] = None
            elif is_left:
                yield from _told(phase, lambda name=name, use=use: sources.open_slices(root, {name: use}))
    if not waits:
        yield from _told(phase, lambda: _refuse_unfit(phase, sources.open_all(root, settings)))


def _told(phase: PlannedPhase, look: Callable[[], object]) -> Iterator[Problem]:
    try:
        look()
    except ConfigError as error:
        yield from (Problem(f"phase {phase.name}: {problem.key}", problem.message) for problem in error.problems)
    except InputError as error:
        yield Problem(f"phase {phase.name}", str(error))


def _refuse_unfit(phase: PlannedPhase, opened: sources.Opened) -> None:
    refuse_unpaired(phase.settings, opened)
    record = phase.folder / "data.json"
    if record.exists() and (changed := sources.changed(read_object(record), opened.record)):
        raise InputError(
            f"{phase.folder} was made with other data: {', '.join(changed)} was prepared anew since; remove that folder "
            "to train on the new data, or change seed or any key to keep both"
        )


def _budget(plan: Plan, token_budget: int | None) -> Iterator[Problem]:
    """Whether each model that is scored can be asked with the evaluation's budget."""
    for phase in plan.phases:
        if phase.name not in plan.scored or token_budget is None:
            continue
        found = shapes(phase.config)
        try:
            refuse_budget(found.encoder.count, found.views, token_budget)
        except Mismatch as error:
            yield Problem("evaluate.keys.token_budget", f"{token_budget} is given, but {error}")
            continue
        if found.fusion is None:
            continue
        visual = found.views.slots * found.fusion.count(found.views.height, found.views.width, token_budget)
        if visual + 2 > found.reader.positions:  # as much text as any question asks for
            message = (
                f"{token_budget} makes {visual} visual tokens, which leave no room for text in the {found.reader.positions} "
                f"positions of phase {phase.name}'s llm; choose a smaller one"
            )
            yield Problem("evaluate.keys.token_budget", message)


def _top(folder: Path, data: str) -> str:
    """The folder right under paths.data that it lies in."""
    return folder.relative_to(data).parts[0] if folder.is_relative_to(data) else ""


def _taken(phase: PlannedPhase) -> Iterator[Problem]:
    """A run that another process works on, such as a phase that two pipelines have in common."""
    if not (phase.folder / ".lock").exists():
        return
    try:
        with FileLock(phase.folder / ".lock", timeout=0):
            return
    except Timeout:
        message = f"another process works in {phase.folder}; wait for it, then give the same command again"
        yield Problem(f"phase {phase.name}", message)


def _benchmarks(
    scoring: EvaluateConfig, preparable: Mapping[str, Sequence[str]], missing: dict[str, None]
) -> Iterator[Problem]:
    """Their settings, and whether their tables are there."""
    for name in scoring.benchmarks if scoring.benchmarks is not None else scoring.suite.benchmarks:
        try:
            found = prepared_benchmark(name, scoring.change.get(name, {}), scoring.paths.data)
        except ConfigError as error:
            yield from (Problem(f"evaluate: {problem.key}", problem.message) for problem in error.problems)
            continue
        folder = Path(found.reader.folder)
        try:
            absent = [folder / file for file in found.reader.files() if not (folder / file).is_file()]
            fault = f"{absent[0]} is not there" if absent else None
        except InputError as error:
            fault = str(error)
        if fault and (top := _top(folder, scoring.paths.data)) in preparable:
            missing[top] = None
        elif fault:
            message = f"benchmark {name}: {fault}\n     its files: {found.settings.get}"
            yield Problem("evaluate", f"{message}; or leave the scores out with evaluate=null")


def _disk(plan: Plan) -> Iterator[Problem]:
    needed, runs = plan.settings.disk_gb, Path(plan.settings.paths.runs).absolute()
    if needed is None:
        return
    there = next(folder for folder in (runs, *runs.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free / 1e9
    if free < needed:
        message = f"{runs} has {free:.1f} GB free, and the runs need about {needed:g} GB (disk_gb)"
        yield Problem("paths.runs", f"{message}; free some space, or give another disk with paths.runs=DIR")
