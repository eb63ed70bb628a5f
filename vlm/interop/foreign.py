"""What a published checkpoint says, in this project's terms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vlm.contracts.errors import InputError

Check = Callable[[Mapping[str, Tensor]], None]


@dataclass(frozen=True)
class Foreign:
    """overrides: the configuration that builds its twin.   tensors: ours by "<part>.<name>".   tokenizer: its file.

    adapters: tensors of each by PEFT's names.   made_on: the language model of each, where it is told.   check: raises InputError if `tensors` are not those of the twin.
    notes: what a user should know, although nothing is wrong.
    A part without tensors comes from elsewhere: the language model from the folder that the configuration names.
    """

    overrides: list[str]
    tensors: dict[str, Tensor]
    dtype: torch.dtype
    tokenizer: Path | None = None
    adapters: Mapping[str, dict[str, Tensor]] = field(default_factory=dict)
    made_on: Mapping[str, str | None] = field(default_factory=dict)
    check: Check | None = None
    notes: tuple[str, ...] = ()


def take(tensors: Mapping[str, Tensor], name: str, source: Path) -> Tensor:
    """Raises: InputError if there is no such tensor."""
    if name not in tensors:
        raise InputError(f"{source}: tensor {name!r} is missing; it has {', '.join(natural(tensors)[:12])}, …")
    return tensors[name]


def natural(names: Mapping[str, Tensor] | list[str]) -> list[str]:
    """Sorted with numbers as numbers: block 10 after block 9."""
    return sorted(names, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)])
