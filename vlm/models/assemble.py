"""A plain dict becomes a model; shared by training, loading and export, so it knows no configuration library."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, get_args

from vlm.contracts.errors import InputError
from vlm.contracts.parts import ATTACHED


def create(node: Mapping[str, Any], **wired: Any) -> Any:
    """Call the node's `_target_` with its keys and the wired arguments.

    A mapping whose parameter is annotated with a settings record, or with a mapping to such records, arrives so.
    """
    built = find(node)
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    for key, value in arguments.items():
        if isinstance(value, Mapping):
            kind = inspect.get_annotations(built.__init__, eval_str=True).get(key)
            arguments[key] = _as_records(kind, value)
    return built(**arguments, **wired)


def find(node: Mapping[str, Any]) -> Any:
    """The class that a node names. Raises: InputError for one outside the project."""
    module, _, name = node["_target_"].rpartition(".")
    if not module.startswith("vlm."):  # the configuration check says so earlier; nobody else's code is ever called
        raise InputError(f"_target_: {node['_target_']} is not part of this project")
    return getattr(importlib.import_module(module), name)


def _as_records(kind: Any, value: Mapping[str, Any]) -> Any:
    if is_dataclass(kind):
        return kind(**value)  # type: ignore[operator]
    record = next((member for member in get_args(kind) if is_dataclass(member)), None)
    return value if record is None else {key: record(**inner) for key, inner in value.items()}  # type: ignore[operator]


def part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A part's node without what is attached to it."""
    return {key: value for key, value in config[name].items() if key not in ATTACHED.get(name, ())}


def assemble(config: Mapping[str, Any], view_spec: Any) -> Any:
    """Random weights for the model that the node `model` of `config` names, from the nodes that this model asks for.

    view_spec: what the view maker gives (ViewSpec). Each part learns its sizes from its neighbours' specs.
    """
    nodes = find(config["model"]).nodes
    parts: dict[str, Any] = {"encoder": create(part(config, "encoder"), views=view_spec)}
    for name in (name for name in ("llm", "text") if name in nodes):
        parts[name] = create(part(config, name))
    if "connector" in nodes:
        width = parts["llm"].spec.width
        parts["connector"] = create(part(config, "connector"), source=parts["encoder"].spec, width=width)
        parts["fusion"] = create(part(config, "fusion"), source=parts["connector"].spec, width=width)
    kept = {name: config[name] for name in ("model", *nodes)}
    return create(config["model"], config=kept, **{name: parts[name] for name in nodes})
