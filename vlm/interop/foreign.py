"""What a published checkpoint says, in this project's terms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vlm.contracts.errors import InputError


@dataclass(frozen=True)
class Foreign:
    """overrides: the configuration that builds its twin.   tensors: ours by "<part>.<name>".   tokenizer: its file."""

    overrides: list[str]
    tensors: dict[str, Tensor]
    dtype: torch.dtype
    tokenizer: Path | None = None


def take(tensors: Mapping[str, Tensor], name: str, source: Path) -> Tensor:
    """Raises: InputError if there is no such tensor."""
    if name not in tensors:
        raise InputError(f"{source}: tensor {name!r} is missing; it has {', '.join(natural(tensors)[:12])}, …")
    return tensors[name]


def natural(names: Mapping[str, Tensor] | list[str]) -> list[str]:
    """Sorted with numbers as numbers: block 10 after block 9."""
    return sorted(names, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)])
