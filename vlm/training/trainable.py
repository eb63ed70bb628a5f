"""One tree says what trains and at which rate; everything else is frozen and in eval mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from vlm.contracts.errors import ConfigError, Problem
from vlm.contracts.parts import ADAPTER, logical, paths


class Trainable:
    """Which path rules each parameter of a model: the longest that is a prefix of its (logical) name.

    A path rules an adapter only if it begins with `adapter`: training a language model does not train its adapters.
    Raises: ConfigError for a path that no parameter bears, and if nothing trains.
    """

    def __init__(self, model: nn.Module, tree: Mapping[str, Any]) -> None:
        self.rates = paths(tree)
        self.groups: dict[str, list[str]] = {path: [] for path in self.rates}  # names: sharding replaces parameters
        for name, parameter in model.named_parameters():
            path = self._longest(logical(name))
            if path is None or self.rates[path] is None:
                parameter.requires_grad_(False)
            else:
                parameter.requires_grad_(True)
                self.groups[path].append(name)
        names = [logical(name) for name, _ in model.named_parameters(remove_duplicate=False)]
        weightless = [name for name, part in model.named_children() if not list(part.parameters())]
        problems = [
            Problem(f"phase.trainable.{path}", f"no parameter is called so; parts are {', '.join(_tops(names))}")
            for path in self.rates
            if not any(_under(name, path) for name in names)
            and path not in weightless
            and (path != ADAPTER or self.rates[path] is not None)  # a null takes back what a phase's file says
        ]
        self.groups = {path: group for path, group in self.groups.items() if group}
        if not problems and not self.groups:
            problems = [Problem("phase.trainable", "nothing trains: every part is frozen")]
        if problems:
            raise ConfigError(problems)

    def set_mode(self, model: nn.Module, training: bool) -> None:
        """Train mode for trained modules only, so that frozen BatchNorm statistics and dropout stand still."""
        for name, module in model.named_modules():
            path = self._longest(logical(name)) if name else None
            module.training = training and path is not None and self.rates[path] is not None

    def _longest(self, name: str) -> str | None:
        return max((path for path in self.rates if _under(name, path)), key=len, default=None)


def _under(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")


def _tops(names: list[str]) -> list[str]:
    return sorted({name.partition(".")[0] for name in names})
