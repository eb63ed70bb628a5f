"""Configuration files: which one wrote which key, which groups a command has, and what is wrong with a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from vlm.contracts.errors import Problem
from vlm.wording import join


def record(origins: dict[str, str], key: str, value: Any, file: str) -> None:
    """Note who wrote a value: of a mapping the first file, of everything else the last."""
    steps = key.split(".") if key else []
    for length in range(1, len(steps)):
        origins.setdefault(".".join(steps[:length]), file)
    if isinstance(value, Mapping):
        if key and not any(known.startswith(f"{key}.") for known in origins):
            origins[key] = file
        for name, item in value.items():
            record(origins, join(key, name), item, file)
    else:
        origins[key] = file


def origin(key: str, origins: Mapping[str, str]) -> str | None:
    """The file that wrote a key, or the nearest node around it; of a node with a `_target_` the file that wrote that."""
    steps = key.partition("[")[0].split(".")
    around = [".".join(steps[:length]) for length in range(len(steps), 0, -1)]
    written = [name for node in around for name in (f"{node}._target_", node) if name in origins]
    return origins[written[0]] if written else None


def under(key: str, nodes: Iterable[str]) -> bool:
    """Whether a key is one of the nodes or stands inside one."""
    return any(key == node or key.startswith((f"{node}.", f"{node}[")) for node in nodes)


def load(file: Path) -> dict[str, Any]:
    """The keys of a YAML file, without those that only concern Hydra."""
    return {key: value for key, value in _read(file).items() if key not in ("defaults", "hydra")}


def group_defaults(file: Path, prefix: str = "") -> dict[str, str | None]:
    """The choices that a file's defaults list makes, by group; `???` leaves one to the user.

    prefix: "override /" for the choices that a file makes for groups of the command's own file.
    """
    entries = [entry for entry in _read(file).get("defaults", []) if isinstance(entry, dict)]
    pairs = [pair for entry in entries for pair in entry.items()]
    return {
        group.removeprefix(prefix): choice
        for group, choice in pairs
        if group.startswith(prefix) and (prefix or not group.startswith("override "))
    }


def _read(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:  # a stream, so that the reader's errors carry the file's name
        return yaml.load(stream, yaml.CSafeLoader) or {}


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def file_problem(error: Exception, folder: Path) -> Problem:
    """What kept the configuration files in `folder` from being composed, as Hydra or the YAML reader put it."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        file = Path(error.problem_mark.name)
        name = file.relative_to(folder.parent) if file.is_relative_to(folder.parent) else file
        return Problem(f"line {error.problem_mark.line + 1}", f"this is no YAML: {error.problem}", str(name))
    cause = f"\n{error.__cause__}" if error.__cause__ else ""
    lines = [line.strip() for line in f"{error}{cause}".splitlines() if line.strip()]
    where, separator, rest = lines[0].partition("': ")
    if separator and where.startswith("In '"):
        return Problem("defaults", " ".join([rest, *lines[1:]]), f"{folder.name}/{where[4:]}.yaml")
    return Problem("defaults", " ".join(lines), folder.name)
