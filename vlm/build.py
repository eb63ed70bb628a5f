"""The only file under vlm/ that knows Hydra: overrides become a checked, plain configuration."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from vlm.check import check
from vlm.contracts.errors import ConfigError, Problem
from vlm.contracts.places import config_dir
from vlm.contracts.settings import RunConfig
from vlm.jobs import combinations
from vlm.origins import file_problem, first_line, group_defaults, load, origin, record, under
from vlm.wording import field_types, join, nearest, no_choice, shown, unknown

COMMAND_LINE = "command line"
COMPOSING = (HydraException, OmegaConfBaseException, yaml.YAMLError)  # what composing files may raise
SHADOWS = "__"  # before a key that has the name of another command's group: Hydra takes it for a choice of that group


@dataclass(frozen=True)
class Composed:
    """A configuration that passed the check.

    config: plain and resolved.   choices: group -> choice.   overrides: as typed, without leading plus signs.
    """

    config: dict[str, Any]
    choices: dict[str, str | None]
    overrides: list[str]


def compose(overrides: Iterable[str] = (), root: str = "train", schema: type = RunConfig) -> Composed:
    """The configuration of conf/<root>.yaml with overrides as on the command line, checked.

    schema: the dataclass of the whole configuration.
    Raises: ConfigError with every mistake in the overrides, the files, and what they would build.
    """
    with composer(root, schema) as opened:
        composed, problems = opened.compose(list(overrides))
    if problems:
        raise ConfigError(problems)
    return composed


@contextmanager
def composer(root: str, schema: type = RunConfig) -> Iterator[Composer]:
    """A composer with a Hydra of its own; one that is already running is put aside and comes back."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), job_name=root, version_base="1.3"):
            yield Composer(GlobalHydra.instance().config_loader(), root, schema)
    finally:
        GlobalHydra.instance().hydra = outer


@dataclass
class Base:
    """What the chosen files give, before single values are set."""

    config: DictConfig
    choices: dict[str, str | None]


@dataclass
class Line:
    """One override.   options: the choices if it chooses a file of a group.   for_hydra: it only concerns Hydra.

    shadows: it sets a value, but there is a group of that name.
    """

    text: str
    override: Override
    options: list[str]
    for_hydra: bool
    shadows: bool

    @property
    def key(self) -> str:
        return self.override.key_or_group

    @property
    def sets_value(self) -> bool:
        return not self.options and not self.for_hydra

    def forced(self) -> str:
        """As Hydra takes it without an opinion on the key: the check has that opinion."""
        if not self.sets_value or self.override.is_delete():
            return self.text
        return f"++{SHADOWS if self.shadows else ''}{self.text.lstrip('+')}"

    def problem(self, message: str) -> Problem:
        return Problem(self.key, message, COMMAND_LINE)


@dataclass
class Composer:
    """Files are chosen by Hydra; values are set one by one, so that each can name itself when it is wrong."""

    loader: ConfigLoader
    root: str
    schema: type
    bases: dict[tuple[str, ...], Base] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    config: DictConfig = field(default_factory=OmegaConf.create)  # the last one composed, with its interpolations

    def __post_init__(self) -> None:
        self.parser = OverridesParser.create(config_loader=self.loader)
        self.defaults = group_defaults(config_dir() / f"{self.root}.yaml")
        self.fields = list(field_types(self.schema))

    def compose(self, overrides: list[str]) -> tuple[Composed, list[Problem]]:
        """The configuration and every problem found; with problems it is only as good as they let it be."""
        lines, problems = self.parse(overrides)
        chosen, wrong = self._choices(lines)
        problems += wrong
        try:
            inside = [problem for line in lines for problem in self._wrong_inside(line)]
            if inside:
                return Composed({}, {}, overrides), problems + inside
            base = self._base(tuple(chosen))
        except COMPOSING as error:
            return Composed({}, {}, overrides), [*problems, *self._culprits(chosen, error)]
        self.config = base.config.copy()
        problems += [line.problem(message) for line in lines for message in self._left_out(line)]
        values = [line for line in lines if line.sets_value and not line.override.is_sweep_override()]
        problems += [line.problem(message) for line in values for message in self._set(line)]
        unresolved = [Problem(key, message) for key, message in _unresolved(self.config)]
        for problem in unresolved:
            OmegaConf.update(self.config, problem.key, None)
        plain: Any = OmegaConf.to_container(self.config, resolve=True)
        broken = [problem.key for problem in [*problems, *unresolved]]
        found = _without_echoes(check(plain, self.schema), self.config)
        found = [problem for problem in found if not under(problem.key, broken)]
        located = self._located([*unresolved, *found], chosen, values)
        # After a wrong choice some files are a guess, so only what was typed can be judged.
        problems += [problem for problem in located if problem.file == COMMAND_LINE or not wrong]
        return Composed(plain, base.choices, [line.text.lstrip("+") for line in lines]), problems

    def _choices(self, lines: list[Line]) -> tuple[list[str], list[Problem]]:
        """What Hydra is asked for. The nearest choice stands in for a wrong one, so that the rest can be looked at."""
        chosen: list[str] = []
        problems: list[Problem] = []
        for line in lines:
            if line.override.is_sweep_override():
                problems.append(line.problem("several values; add -m to sweep over them, or write [a,b] for a list"))
            elif self.leaves_empty(line):
                continue
            elif wrong := _wrong_choices(line):
                problems += [line.problem(message) for message in wrong.values()]
                chosen += [f"{line.key}={near}" for name in wrong for near in nearest(name, line.options)]
            elif line.override.is_add() and line.key in self.defaults and line.override.package is None:
                problems.append(line.problem(f"is chosen already; write {line.text.lstrip('+')} without a plus sign"))
            elif not line.sets_value:
                chosen.append(line.text)
        for group, choice in self.defaults.items():
            if choice == "???" and not any(line.key == group for line in lines):
                options = sorted(self.loader.get_group_options(group))
                problems.append(Problem(group, f"missing; choose one with {group}=NAME: {', '.join(options)}"))
                chosen.append(f"{group}={options[0]}")
        return chosen, problems

    def leaves_empty(self, line: Line) -> bool:
        """`experiment=null`: nothing for a group that may stay empty; Hydra has no word for it."""
        may = bool(line.options) and line.key in self.defaults and self.defaults[line.key] is None
        return may and not line.override.is_sweep_override() and line.override.value() is None

    def _wrong_inside(self, line: Line) -> Iterator[Problem]:
        """Choices that a chosen file makes for other groups, and that these do not have."""
        if not line.options or line.override.is_sweep_override() or line.override.value() is None:
            return
        name = f"{line.key}/{line.override.value()}.yaml"
        if not (config_dir() / name).is_file():
            return
        for group, choice in group_defaults(config_dir() / name, "override /").items():
            options = sorted(self.loader.get_group_options(group))
            if choice is not None and choice not in options:
                message = f"override /{group}: {no_choice(group, choice, options)}"
                yield Problem("defaults", message, f"{config_dir().name}/{name}")

    def parse(self, overrides: Iterable[str]) -> tuple[list[Line], list[Problem]]:
        """Overrides as Hydra reads them, and a problem for each that it cannot read."""
        lines: list[Line] = []
        problems: list[Problem] = []
        for text in overrides:
            if text not in self.lines:
                try:
                    self.lines[text] = self._line(text)
                except HydraException as error:
                    message = (
                        f"cannot be read ({first_line(error)}); write key=value, and quote spaces, commas and braces"
                    )
                    problems.append(Problem(text, message, COMMAND_LINE))
                    continue
            lines.append(self.lines[text])
        launcher = any(line.key == "hydra/launcher" for line in lines)
        refused = [(line, _not_ours(line, launcher)) for line in lines]
        problems += [line.problem(message) for line, message in refused if message]
        return [line for line, message in refused if not message], problems

    def _line(self, text: str) -> Line:
        override = self.parser.parse_overrides([text])[0]  # unlike parse_override, this knows how to expand glob(*)
        key = override.key_or_group
        is_mapping = not override.is_sweep_override() and isinstance(override.value(), dict)
        options = [] if is_mapping else sorted(self.loader.get_group_options(key))
        shadows = bool(options) and key in self.fields and key not in self.defaults
        options = [] if shadows else options
        return Line(text, override, options, key.split(".")[0].split("/")[0] == "hydra", shadows)

    def jobs(self, overrides: list[str]) -> tuple[list[list[str]], list[Problem]]:
        """The jobs of a sweep, as lists of overrides; of very many a choice that holds each single value."""
        lines, problems = self.parse(overrides)
        values: dict[str, list[str]] = {}
        for line in lines:
            name = line.override.get_key_element().lstrip("+")
            if not line.override.is_sweep_override():
                values[name] = [line.text]
            elif not line.override.is_discrete_sweep():
                problems.append(line.problem("this kind of sweep needs another sweeper; write values as a,b,c"))
            else:
                values[name] = [f"{name}={value}" for value in line.override.sweep_string_iterator()]
                if line.options and f"{name}=null" in values[name]:
                    problems.append(line.problem("null is no choice to sweep over; start that run by itself"))
                if not values[name]:
                    problems.append(line.problem(f"matches nothing; choices: {', '.join(line.options)}"))
        return combinations(values), problems

    def command(self, overrides: list[str], is_sweep: bool) -> tuple[Composed, list[Problem]]:
        """One command, or all jobs of a sweep; a problem of some jobs only says which."""
        if not is_sweep:
            return self.compose(overrides)
        jobs, problems = self.jobs(overrides)
        composed = Composed({}, {}, overrides)
        if len(jobs) > 100:
            print(f"checking {len(jobs)} jobs before the first starts", file=sys.stderr)
        affected: dict[Problem, list[list[str]]] = {}
        for job in jobs:
            composed, found = self.compose(job)
            for problem in found:
                affected.setdefault(problem, []).append(job)
        for problem, some in affected.items():
            which = f" ({len(some)} of {len(jobs)} jobs, first: {' '.join(some[0])})" if len(some) < len(jobs) else ""
            problems.append(dataclasses.replace(problem, message=problem.message + which))
        return composed, problems

    def _base(self, chosen: tuple[str, ...]) -> Base:
        if chosen not in self.bases:
            config = self.loader.load_configuration(self.root, [*chosen], RunMode.RUN)
            choices = config.hydra.runtime.choices
            choices = {key: value for key, value in choices.items() if not key.startswith("hydra/")}
            OmegaConf.set_struct(config, False)
            del config["hydra"]
            self.bases[chosen] = Base(config, choices)
        return self.bases[chosen]

    def _located(self, problems: list[Problem], chosen: list[str], values: list[Line]) -> list[Problem]:
        """The problems with the files that wrote the values; only a refusal pays for finding these."""
        if not problems:
            return []
        origins: dict[str, str] = {}
        for default in self.loader.compute_defaults_list(self.root, chosen, RunMode.RUN).defaults:
            name = f"{default.config_path}.yaml"
            if (config_dir() / name).is_file() and not name.startswith("hydra/"):
                record(origins, default.package or "", load(config_dir() / name), f"{config_dir().name}/{name}")
        for line in values:
            record(origins, line.key, line.override.value(), COMMAND_LINE)
        return [dataclasses.replace(problem, file=origin(problem.key, origins)) for problem in problems]

    def _culprits(self, chosen: list[str], error: Exception) -> list[Problem]:
        """The overrides, or else the file, with which Hydra cannot compose."""
        found: list[Problem] = []
        for text in chosen:
            try:
                self._base((text,))
            except COMPOSING as own:
                problem = file_problem(own, config_dir())
                if text in self.lines and problem.file == config_dir().name:  # Hydra blames no file
                    found.append(self.lines[text].problem(problem.message))
        return found or [file_problem(error, config_dir())]

    def _left_out(self, line: Line) -> Iterator[str]:
        """A part that is chosen, or a key of it that is set, for a model that does not have it."""
        top = line.key.split(".")[0]
        if (
            top in self.defaults
            and top in self.fields
            and self.config.get(top, "") is None
            and not self.leaves_empty(line)
        ):
            yield f"model={OmegaConf.select(self.config, 'model._target_', default='?').rpartition('.')[2]} has no {top}"

    def _set(self, line: Line) -> list[str]:
        """Set or delete one value, whether a schema knows the key or not; the check says what is wrong with it."""
        key, top = line.key, line.key.split(".")[0]
        if top not in self.config and top not in self.fields:
            return [unknown(top, dict.fromkeys([*self.fields, *self.defaults]))]
        if line.override.package is not None:
            return [f"there is no group {key!r} to put at @{line.override.package}"]
        for around in itertools.accumulate(key.split(".")[:-1], join):
            value = OmegaConf.select(self.config, around, throw_on_missing=False)
            if value is not None and not isinstance(value, DictConfig):
                return [f"{around} has no keys inside, its value is {shown(str(value))}"]
        try:
            if line.override.is_delete():
                parent, _, last = key.rpartition(".")
                holder = OmegaConf.select(self.config, parent) if parent else self.config
                if not isinstance(holder, DictConfig) or last not in holder:
                    return ["there is nothing to delete"]
                del holder[last]
            else:
                OmegaConf.update(self.config, key, line.override.value(), merge=True, force_add=True)
        except (OmegaConfBaseException, ValueError, TypeError) as error:
            return [first_line(error)]
        return []


def _not_ours(line: Line, has_launcher: bool) -> str | None:
    """Why a setting of Hydra's own is refused."""
    if not line.for_hydra or line.key in ("hydra/launcher", "hydra.verbose"):
        return None
    if line.key.startswith(("hydra.mode", "hydra.sweeper")):
        return "a sweep is started with -m and key=a,b"
    if not line.key.startswith("hydra.launcher."):
        return "of Hydra's own settings only hydra/launcher and hydra.verbose can be set here"
    return None if has_launcher else "belongs to a launcher; choose it too, for example hydra/launcher=joblib"


def _wrong_choices(line: Line) -> dict[str, str]:
    """What a group override asks for and the group does not have -> the message."""
    if not line.options:
        return {}
    if line.override.is_delete() or line.override.value() is None:
        return {"": f"cannot be left out; choose one of {', '.join(line.options)}"}
    value = line.override.value()
    if isinstance(value, list):
        more = "; to mix sets, add them: +data.train.SET={split: train}" if line.key == "data" else ""
        return {"": f"takes one choice, not a list; -m and {line.key}=a,b start a run each{more}"}
    return {} if str(value) in line.options else {str(value): no_choice(line.key, str(value), line.options)}


def _unresolved(node: DictConfig | ListConfig, key: str = "") -> Iterator[tuple[str, str]]:
    """Keys whose value is `???` or an interpolation that leads nowhere."""
    names: Iterable[Any] = list(node) if isinstance(node, DictConfig) else range(len(node))
    for name in names:
        path = f"{key}[{name}]" if isinstance(name, int) and key else join(key, name)
        if OmegaConf.is_missing(node, name):
            yield path, f"missing; give it as {path}=VALUE"
            continue
        try:
            value = node[name]
        except InterpolationToMissingValueError:
            continue  # the value that is missing is told at its own key
        except OmegaConfBaseException as error:
            yield path, f"cannot be resolved: {first_line(error)}"
        else:
            if isinstance(value, Container) and not OmegaConf.is_interpolation(node, name):
                yield from _unresolved(value, path)  # type: ignore[arg-type]


def _without_echoes(problems: list[Problem], config: DictConfig) -> list[Problem]:
    """Without the problems of values that only repeat another key's wrong value."""

    def repeats(problem: Problem) -> bool:
        parent, _, last = problem.key.rpartition(".")
        holder = OmegaConf.select(config, parent) if parent else config
        return isinstance(holder, DictConfig) and last in holder and OmegaConf.is_interpolation(holder, last)

    def echoes(number: int, problem: Problem) -> bool:
        if not repeats(problem):
            return False
        parent, _, last = problem.key.rpartition(".")
        holder: Any = OmegaConf.select(config, parent) if parent else config
        # Of several that all repeat something, such as a path made from another key, the first is told.
        others = [other for place, other in enumerate(problems) if place < number or not repeats(other)]
        # a text (a path, say) is wrong in other words for each part that reads it
        same = [OmegaConf.select(config, other.key, throw_on_missing=False) for other in others]
        return any(problem.message == other.message for other in others) or (
            isinstance(holder[last], str) and holder[last] in same
        )

    return [problem for number, problem in enumerate(problems) if not echoes(number, problem)]
