"""A task becomes a command: checked before anything starts, swept by Hydra, ended with a message and an exit code."""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import Container, DictConfig, OmegaConf

from vlm.build import COMMAND_LINE, SHADOWS, Composed, compose, composer
from vlm.contracts.errors import ConfigError, InputError, RunError
from vlm.contracts.places import config_dir
from vlm.contracts.settings import RunConfig
from vlm.origins import group_defaults
from vlm.training.ranks import launched_world, rank
from vlm.training.stopping import STOPPED
from vlm.wording import did_you_mean

Task = Callable[[Composed], Any]
USAGE = """python -m MODULE [group=choice] [key=value] [-m]
       python -m MODULE --cfg job [--resolve] [-p NODE] [group=choice] [key=value]
       python -m MODULE --help | --info | --hydra-help | --version"""
SWEEP = ("-m", "--multirun")
STARTS_MISSING = "stopped; the same command starts what is missing"
NOTHING_SAVED = "stopped before there was anything to save; give the same command again"
HELP = """
Keys (key=value): each stands with its meaning in the YAML files of conf/; --cfg job prints all of them.
  --cfg job [--resolve] [-p NODE]   print the configuration, or one node of it, and run nothing
  -m, --multirun                    several values (key=a,b or group=glob(*)) start a run each
  --info, --hydra-help              what Hydra itself can do

Exit codes: 0 done, 1 failed, 2 refused before anything was started, 75 stopped on request (run it again to go on)."""


def entry(root: str, schema: type = RunConfig) -> Callable[[Task], Callable[[], None]]:
    """Make a command of a task: `@entry("train")` over `def main(composed)`.

    The command line, of a sweep every job of it, is checked before Hydra starts anything or makes a folder.
    Exit codes: 0 done, 1 failed, 2 refused, 75 stopped on request; a SystemExit of the task passes through.
    """

    def decorate(task: Task) -> Callable[[], None]:
        @functools.wraps(task)
        def main() -> None:
            # A cluster's way of Ctrl-C; and a shell's background jobs are deaf to Ctrl-C itself.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.default_int_handler)
            try:
                code = _Command(root, schema, task).run(sys.argv[1:])
                sys.stdout.flush()
            except BrokenPipeError:  # the reader, such as head, has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
                code = 0
            except KeyboardInterrupt:
                print(STARTS_MISSING if is_sweep(sys.argv[1:]) else NOTHING_SAVED, file=sys.stderr)
                code = STOPPED
            if code:
                sys.exit(code)

        return main

    return decorate


@dataclass
class _Command:
    """A task behind Hydra's command line.   told: errors of jobs whose message is out already."""

    root: str
    schema: type
    task: Task
    told: list[Exception] = field(default_factory=list)

    def run(self, argv: list[str]) -> int:
        parser = get_args_parser()
        parser.usage = USAGE.replace("MODULE", _module(self.task))
        # These may stand anywhere; the parser takes overrides in one piece only.
        argv = [*(word for word in argv if word in SWEEP), *(word for word in argv if word not in SWEEP)]
        arguments = parser.parse_args(argv)
        if arguments.help:
            about = getattr(self.task, "__globals__", {}).get("__doc__") or ""  # the docstring of the task's file
            print(help_text(about, config_dir() / f"{self.root}.yaml"))
            return 0
        if arguments.hydra_help or arguments.shell_completion or arguments.info is not None:
            self._hydra(argv, lambda config: None)
            return 0
        if arguments.config_path or arguments.config_name or arguments.config_dir or arguments.experimental_rerun:
            parser.error("this command has one configuration; add files to conf/, or set keys with key=value")
        if arguments.cfg and arguments.multirun:
            parser.error("--cfg shows one configuration; leave --multirun out")
        with composer(self.root, self.schema) as opened:
            composed, problems = opened.command(arguments.overrides, arguments.multirun)
            typed = opened.parse(arguments.overrides)[0]
            forced = {line.text: line.forced() for line in typed}
            empty = [line.text for line in typed if opened.leaves_empty(line)]
        if arguments.cfg and composed.config:  # shown although values are still missing
            needed = [group for group, choice in opened.defaults.items() if choice == "???"]
            problems = [problem for problem in problems if problem.file == COMMAND_LINE or problem.key in needed]
        if problems:
            print(ConfigError(problems), file=sys.stderr)
            return 2
        if arguments.cfg == "job":
            if arguments.package and OmegaConf.select(opened.config, arguments.package) is None:
                options = [str(name) for name in opened.config]
                parser.error(f"--package: no node {arguments.package!r}{did_you_mean(arguments.package, options)}")
            print(_shown(opened.config, arguments.package, arguments.resolve), end="")
            return 0
        argv = [forced.get(word, word) for word in argv if word not in empty]
        if arguments.multirun:
            return self._sweep(argv)
        self._hydra(argv, lambda config: self._single(composed))
        return 0

    def _hydra(self, argv: list[str], job: Callable[[DictConfig], Any]) -> None:
        before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
        sys.argv = [sys.argv[0], *argv]
        os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed and ending the process
        try:
            hydra.main(config_path=str(config_dir()), config_name=self.root, version_base="1.3")(job)()
        finally:
            sys.argv = before[0]
            if before[1] is None:
                del os.environ["HYDRA_FULL_ERROR"]

    def _single(self, composed: Composed) -> None:
        try:
            self.task(composed)
        except Exception as error:
            raise SystemExit(tell(error)) from error

    def _sweep(self, argv: list[str]) -> int:
        try:
            self._hydra(argv, lambda config: self._job())
        except Exception as error:  # noqa: BLE001 - told here or when it happened
            if all(error is not known for known in self.told):
                tell(error)
            return 1
        return 0

    def _job(self) -> Any:
        overrides = [line.removeprefix("++").removeprefix(SHADOWS) for line in HydraConfig.get().overrides.task]
        try:
            return self._value(compose(overrides, self.root, self.schema))
        except Exception as error:
            self.told.append(error)
            print(f"failed: {' '.join(overrides)}", file=sys.stderr)
            tell(error)
            raise  # Hydra marks the job as failed and goes on with the others

    def _value(self, composed: Composed) -> Any:
        try:
            return self.task(composed)
        except SystemExit as end:
            if end.code == STOPPED:  # on request: the sweep ends too
                raise
            if end.code:
                raise RunError(f"the run ended with exit code {end.code}") from end
        return None


def is_sweep(argv: list[str]) -> bool:
    return any(word in SWEEP for word in argv)


def _module(task: Task) -> str:
    """The name behind `python -m`; a task that is run as a script only knows its file."""
    spec = getattr(task, "__globals__", {}).get("__spec__")
    return spec.name if spec else Path(sys.argv[0]).name


def _shown(config: DictConfig, node: str | None, resolve: bool) -> str:
    """A configuration, or one node of it, as YAML."""
    if resolve:
        OmegaConf.resolve(config)
    selected = OmegaConf.select(config, node) if node else config
    return OmegaConf.to_yaml(selected) if isinstance(selected, Container) else f"{selected}\n"


def help_text(about: str, root: Path) -> str:
    """What a command does, the groups of its configuration with their choices, and what its exit codes mean.

    root: the command's YAML file; its groups are folders beside it.
    """
    choices = {name: sorted(file.stem for file in (root.parent / name).glob("*.yaml")) for name in group_defaults(root)}
    rows = [f"  {name:<12}{' | '.join(names)}" for name, names in choices.items() if names]
    return "\n".join([about.strip(), *(["", "Groups (group=choice):", *rows] if rows else []), HELP])


def tell(error: Exception) -> int:
    """Say on standard error what went wrong: a message, or the traceback of what nobody foresaw.

    Returns the exit code.
    """
    who = f"rank {rank()}: " if launched_world() is not None else ""  # several processes share standard error
    if isinstance(error, ConfigError | InputError | RunError):
        print(f"{who}{error}", file=sys.stderr, flush=True)
    else:
        print(who, end="", file=sys.stderr)
        traceback.print_exception(error)
    return 2 if isinstance(error, ConfigError | InputError) else 1
