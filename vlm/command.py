"""What every command tells its user: its help, its failures, and the jobs of its sweep."""

from __future__ import annotations

import itertools
import math
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm.contracts.errors import ConfigError, InputError, RunError
from vlm.origins import group_defaults

STOPPED = 75  # exit code of a run that was stopped on request, with its state saved
FULLY_CHECKED = 256  # jobs of a sweep that are composed one by one before it starts; of more, single values are
HELP = """
Keys (key=value): each stands with its meaning in the YAML files of conf/; --cfg job prints all of them.
  --cfg job [--resolve] [-p NODE]   print the configuration, or one node of it, and run nothing
  -m, --multirun                    several values (key=a,b or group=glob(*)) start a run each
  --info, --hydra-help              what Hydra itself can do

Exit codes: 0 done, 1 failed, 2 refused before anything was started, 75 stopped on request (run it again to go on)."""


@dataclass(frozen=True)
class Composed:
    """A configuration that passed the check.

    config: plain and resolved.   choices: group -> choice.   overrides: as typed, without leading plus signs.
    """

    config: dict[str, Any]
    choices: dict[str, str | None]
    overrides: list[str]


def help_text(about: str, root: Path) -> str:
    """What a command does, the groups of its configuration with their choices, and what its exit codes mean.

    root: the command's YAML file; its groups are folders beside it.
    """
    choices = {name: sorted(file.stem for file in (root.parent / name).glob("*.yaml")) for name in group_defaults(root)}
    rows = [f"  {name:<12}{' | '.join(names)}" for name, names in choices.items() if names]
    return "\n".join([about.strip(), *(["", "Groups (group=choice):", *rows] if rows else []), HELP])


def combinations(values: Mapping[str, list[str]]) -> list[list[str]]:
    """The jobs of a sweep to look at before it starts: all, or of very many one for each single value.

    values: key -> its overrides, one for each value.
    """
    if math.prod(map(len, values.values())) <= FULLY_CHECKED:
        return [list(job) for job in itertools.product(*values.values())]
    first = {key: choices[0] for key, choices in values.items()}
    singles = [{**first, key: choice} for key, choices in values.items() for choice in choices[1:]]
    return [list(job.values()) for job in [first, *singles]]


def tell(error: Exception) -> int:
    """Say on standard error what went wrong: a message, or the traceback of what nobody foresaw.

    Returns the exit code.
    """
    if isinstance(error, ConfigError | InputError | RunError):
        print(error, file=sys.stderr, flush=True)
    else:
        traceback.print_exception(error)
    return 2 if isinstance(error, ConfigError | InputError) else 1
