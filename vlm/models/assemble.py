"""A plain dict becomes a model; shared by training, loading and export, so it knows no configuration library."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from vlm.contracts.errors import InputError
from vlm.contracts.parts import ATTACHED, PARTS
from vlm.models.vlm import VLM


def create(node: Mapping[str, Any], **wired: Any) -> Any:
    """Call the node's `_target_` with its keys and the wired arguments.

    A mapping whose parameter is annotated with a settings record arrives as that record.
    """
    module, _, name = node["_target_"].rpartition(".")
    if not module.startswith("vlm."):  # the configuration check says so earlier; nobody else's code is ever called
        raise InputError(f"_target_: {node['_target_']} is not part of this project")
    built = getattr(importlib.import_module(module), name)
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    for key, value in arguments.items():
        if isinstance(value, Mapping):
            kind = inspect.get_annotations(built.__init__, eval_str=True).get(key)
            arguments[key] = kind(**value) if is_dataclass(kind) else value  # type: ignore[operator]
    return built(**arguments, **wired)


def part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A part's node without what is attached to it."""
    return {key: value for key, value in config[name].items() if key not in ATTACHED.get(name, ())}


def assemble(config: Mapping[str, Any], view_spec: Any) -> VLM:
    """Random weights for the nodes `encoder`, `connector`, `llm` and `fusion` of `config`.

    view_spec: what the view maker gives (ViewSpec). Each part learns its sizes from its neighbours' specs.
    """
    encoder = create(part(config, "encoder"), views=view_spec)
    llm = create(part(config, "llm"))
    connector = create(part(config, "connector"), source=encoder.spec, width=llm.spec.width)
    fusion = create(part(config, "fusion"), source=connector.spec, width=llm.spec.width)
    return VLM(encoder, connector, llm, fusion, config={name: config[name] for name in PARTS})
