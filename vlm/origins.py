"""Which file wrote which key of a composed configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vlm.wording import join


def record(origins: dict[str, str], key: str, value: Any, file: str) -> None:
    """Note who wrote a value: of a mapping the first file, of everything else the last."""
    steps = key.split(".") if key else []
    for length in range(1, len(steps)):
        origins.setdefault(".".join(steps[:length]), file)
    if isinstance(value, Mapping):
        if key:
            origins.setdefault(key, file)
        for name, item in value.items():
            record(origins, join(key, name), item, file)
    else:
        origins[key] = file


def origin(key: str, origins: Mapping[str, str]) -> str | None:
    """The file that wrote a key, or the nearest node around it."""
    steps = key.partition("[")[0].split(".")
    around = (".".join(steps[:length]) for length in range(len(steps), 0, -1))
    return next((origins[name] for name in around if name in origins), None)


def under(key: str, nodes: Iterable[str]) -> bool:
    """Whether a key is one of the nodes or stands inside one."""
    return any(key == node or key.startswith((f"{node}.", f"{node}[")) for node in nodes)
