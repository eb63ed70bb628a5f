"""A pipeline before it starts: every phase composed and checked, with the id that its run will have."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vlm.build import COMMAND_LINE, Composed, compose
from vlm.contracts.errors import ConfigError, Problem
from vlm.contracts.pipeline import PhaseUse, PipelineConfig, Scoring
from vlm.contracts.places import config_dir
from vlm.contracts.settings import EvaluateConfig, RunConfig
from vlm.origins import under
from vlm.training.folder import read_status, run_id
from vlm.wording import no_choice, typed

PASSED_ON = ("hardware", "logging")  # keys of the pipeline whose words every phase gets as they were typed


@dataclass(frozen=True)
class PlannedPhase:
    """A phase as an ordinary run. words: of experiments.train.   folder: the run's, by its id.

    given: key -> the earlier phase whose folder it holds.   settings: of the run.   config: the same, plain.
    """

    name: str
    experiment: str
    words: tuple[str, ...]
    folder: Path
    given: Mapping[str, str]
    settings: RunConfig
    config: Mapping[str, Any]

    @property
    def status(self) -> dict[str, Any]:
        """status.json, {} if it was never started. Raises: InputError for a file that is no JSON."""
        return read_status(self.folder)

    @property
    def is_finished(self) -> bool:
        return self.status.get("state") == "finished"


@dataclass(frozen=True)
class Plan:
    """What a pipeline will do. id: of its phases' runs.   scored: phase -> words of its evaluation.

    scoring: the evaluation's configuration, whatever the model.   overrides: of the command, as typed.
    """

    settings: PipelineConfig
    id: str
    phases: tuple[PlannedPhase, ...]
    scored: Mapping[str, tuple[str, ...]]
    scoring: EvaluateConfig | None
    overrides: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.settings.name}-{self.id}"

    @property
    def asked(self) -> tuple[PlannedPhase, ...]:
        """From `from` to `until`."""
        names = [phase.name for phase in self.phases]
        first = 0 if self.settings.begin is None else names.index(self.settings.begin)
        last = len(names) - 1 if self.settings.end is None else names.index(self.settings.end)
        return self.phases[first : last + 1]

    @property
    def left(self) -> tuple[PlannedPhase, ...]:
        """Those of them that are not finished."""
        return tuple(phase for phase in self.asked if not phase.is_finished)

    @property
    def evaluates(self) -> bool:
        """Whether scores follow the last phase that is asked for."""
        return bool(self.scored) and self.asked[-1] == self.phases[-1]


def plan(composed: Composed) -> Plan:
    """Every phase and evaluation composed, without torch and although the weights of the later ones do not exist yet.

    Raises: ConfigError with every mistake of all phases, each with the phase's name.
    """
    settings = typed(PipelineConfig, composed.config)
    uses = {name: use for name, use in settings.phases.items() if use is not None}
    wrong = [*_wrong_names(settings, uses)]
    if wrong:  # what is wired wrongly cannot be composed
        raise ConfigError(wrong)
    file = f"conf/pipeline/{composed.choices.get('pipeline')}.yaml"
    writer = _Writer(settings, tuple(composed.overrides), file)
    phases: dict[str, PlannedPhase] = {}
    problems: list[Problem] = []
    for name, use in uses.items():
        words = writer.words(name, use, phases)
        try:
            found = compose(words).config
        except ConfigError as error:
            problems += [writer.located(name, use, problem) for problem in error.problems]
            continue
        known = {key: phases[phase].folder.name for key, phase in use.given.items() if phase in phases}
        folder = Path(settings.paths.runs) / found["name"] / run_id(_with_ids(found, known))
        run = typed(RunConfig, found)
        phases[name] = PlannedPhase(name, use.experiment, tuple(words), folder, use.given, run, found)
    scoring, scored = None, {}
    if settings.evaluate is not None:
        given = {name: str(phases[name].folder) if name in phases else name for name in settings.evaluate.models}
        scored = {name: tuple(writer.scoring_words(settings.evaluate, folder)) for name, folder in given.items()}
        try:
            scoring = typed(EvaluateConfig, compose(next(iter(scored.values())), "evaluate", EvaluateConfig).config)
        except ConfigError as error:
            problems += [writer.evaluation_located(problem) for problem in error.problems]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return Plan(settings, _id(phases.values()), tuple(phases.values()), scored, scoring, tuple(composed.overrides))


def _id(phases: Any) -> str:
    """12 hex digits that stay the same as long as every phase's run does."""
    runs = [[phase.name, phase.folder.parent.name, phase.folder.name] for phase in phases]
    return hashlib.sha256(json.dumps(runs).encode()).hexdigest()[:12]


def _with_ids(config: Mapping[str, Any], ids: Mapping[str, str]) -> dict[str, Any]:
    """A run's configuration as its identity is made: earlier runs by their ids, whether they exist yet or not."""
    weights = {part: ids.get(f"weights.{part}", source) for part, source in config["weights"].items()}
    return {**config, "init_from": ids.get("init_from", config["init_from"]), "weights": weights}


def _wrong_names(settings: PipelineConfig, uses: Mapping[str, PhaseUse]) -> Iterator[Problem]:
    """Phases that there are none of, or not yet."""
    if not uses:
        files = ", ".join(sorted(path.stem for path in (config_dir() / "pipeline").glob("*.yaml")))
        yield Problem(
            "phases", f"there is none; choose pipeline=NAME ({files}), or give phases.NAME={{experiment: NAME}}"
        )
        return
    for name in uses:
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            yield Problem(f"phases.{name}", "a phase's name must be one plain word, as it stands in keys (change.NAME)")
    names = list(uses)
    for place, (name, use) in enumerate(uses.items()):
        for key, source in use.given.items():
            if source not in names[:place]:
                hint = f"; a folder is given as change.{name}.{key}=DIR"
                message = f"no phase before {name}" if source in names else no_choice("phase", source, names[:place])
                yield Problem(f"phases.{name}.{key}", f"{source!r}: {message}{hint}")
    for key, name in (("from", settings.begin), ("until", settings.end)):
        if name is not None and name not in uses:
            yield Problem(key, no_choice("phase", name, names))
    known = [names.index(name) for name in (settings.begin, settings.end) if name in names]
    if known != sorted(known):
        yield Problem("until", f"{settings.end} comes before from={settings.begin}; the order is {', '.join(names)}")
    yield from (
        Problem(f"change.{name}", no_choice("phase", name, names)) for name in settings.change if name not in uses
    )
    if settings.evaluate is None:
        return
    models = settings.evaluate.models
    yield from (Problem("evaluate.models", no_choice("phase", name, names)) for name in models if name not in uses)
    if len(set(models)) < len(models):
        yield Problem("evaluate.models", f"{', '.join(models)}: name each once")
    if (settings.evaluate.suite is None) == (settings.evaluate.benchmarks is None):
        yield Problem("evaluate", "give either suite=NAME or benchmarks=[NAME,...], or evaluate=null for no scores")


@dataclass(frozen=True)
class _Writer:
    """The words of each command, and the key of the pipeline behind each of them. file: of conf/pipeline."""

    settings: PipelineConfig
    overrides: tuple[str, ...]
    file: str

    def words(self, name: str, use: PhaseUse, before: Mapping[str, PlannedPhase]) -> list[str]:
        """Of experiments.train. before: the phases in front of it; one that has a mistake is stood in for by its name."""
        paths = self.settings.paths
        folders = {key: before[phase].folder if phase in before else phase for key, phase in use.given.items()}
        return [
            f"experiment={use.experiment}",
            *self._passed_on(PASSED_ON),
            *words(self.settings.change.get(name, {})),
            f"seed={self.settings.seed}",
            *words({"paths": {"data": paths.data, "runs": paths.runs}}),
            *(f"{key}={word(str(folder))}" for key, folder in folders.items()),
        ]

    def scoring_words(self, scoring: Scoring, model: str) -> list[str]:
        """Of experiments.evaluate."""
        paths = self.settings.paths
        asked = {"suite": scoring.suite, "benchmarks": scoring.benchmarks, "limit": scoring.limit}
        return [
            f"model={word(model)}",
            *words({key: value for key, value in asked.items() if value is not None}),
            *words(scoring.keys),
            *self._passed_on(("logging",)),
            *words({"paths": {"data": paths.data, "runs": paths.runs}}),
        ]

    def _passed_on(self, keys: Sequence[str]) -> list[str]:
        return [text for text in self.overrides if re.split(r"[.=]", text.lstrip("~"))[0] in keys]

    def located(self, name: str, use: PhaseUse, problem: Problem) -> Problem:
        """A mistake of a run, with the phase's name and, where the pipeline wrote the value, the pipeline's key."""
        if problem.file != COMMAND_LINE:
            return dataclasses.replace(problem, file=", ".join(filter(None, [f"phase {name}", problem.file])))
        changed = [text.split("=")[0] for text in words(self.settings.change.get(name, {}))]
        if under(problem.key, changed) or any(under(key, [problem.key]) for key in changed):
            return self._own(f"change.{name}.{problem.key}", problem.message, name)
        if problem.key == "experiment" or problem.key in use.given:
            return self._own(f"phases.{name}.{problem.key}", problem.message, name)
        return dataclasses.replace(problem, file=f"phase {name}, {COMMAND_LINE}")

    def evaluation_located(self, problem: Problem) -> Problem:
        if problem.file != COMMAND_LINE:
            return dataclasses.replace(problem, file=", ".join(filter(None, ["evaluate", problem.file])))
        named = problem.key in ("suite", "benchmarks", "limit", "logging")
        return self._own(f"evaluate.{'' if named else 'keys.'}{problem.key}", problem.message, "evaluate")

    def _own(self, key: str, message: str, name: str) -> Problem:
        """A problem of a key of the pipeline's own."""
        is_typed = any(text.partition("=")[0] == key or text.startswith(f"{key}.") for text in self.overrides)
        return Problem(key, message, COMMAND_LINE if is_typed else self.file)


def words(keys: Mapping[str, Any], at: str = "") -> list[str]:
    """Nested keys as overrides: {"phase": {"max_steps": 10}} -> ["phase.max_steps=10"]."""
    found: list[str] = []
    for key, value in keys.items():
        name = f"{at}{key}"
        found += words(value, f"{name}.") if isinstance(value, Mapping) and value else [f"{name}={word(value)}"]
    return found


def word(value: Any) -> str:
    """A plain value as Hydra reads it back; a text that would be read as something else is quoted."""
    if isinstance(value, str):
        plain = re.fullmatch(r"[\w./@+-]+(?: [\w./@+-]+)*", value, re.ASCII) and yaml.safe_load(value) == value
        escaped = re.sub(r"(\\+)(?=\"|$)", r"\1\1", value).replace('"', '\\"')
        return value if plain and not re.fullmatch(r"[+-]?(\d.*|nan|inf)", value, re.IGNORECASE) else f'"{escaped}"'
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}: {word(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(word, value)) + "]"
    return json.dumps(value)
