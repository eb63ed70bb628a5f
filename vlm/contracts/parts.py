"""The parts of a model by name, and the nodes that stand inside a part's node of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PARTS = ("encoder", "connector", "llm", "fusion", "text", "joint")  # of all models; each model class names its own
ATTACHED = {"encoder": ("views",), "llm": ("tokenizer", "template"), "text": ("tokenizer", "template")}
READERS = ("llm", "text")  # parts that read text; a model has one of them
ADAPTER = "adapter"  # stands for all adapters where parts are named: {adapter: {sft: 1.0e-4}}
_LORA = re.compile(r"\.(lora_\w+)\.(\w+)(?=\.|$)")


def paths(tree: Mapping[str, Any], prefix: str = "") -> dict[str, float | None]:
    """{"llm": {"blocks": {"2": 1e-4}}} -> {"llm.blocks.2": 1e-4}; null marks a path as frozen."""
    found: dict[str, float | None] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found.update(paths(value, f"{path}."))
        else:
            found[path] = value
    return found


def logical(name: str) -> str:
    """A parameter's or module's name as people mean it, where adapters are a part of their own.

    "llm.model.layers.0.mlp.up_proj.lora_A.sft.weight" -> "adapter.sft.llm.model.layers.0.mlp.up_proj.lora_A.weight",
    and a layer that an adapter was put around keeps the name that it had before.
    """
    if found := _LORA.search(name):
        return f"{ADAPTER}.{found[2]}.{name[: found.start()]}.{found[1]}{name[found.end() :]}"
    return name.replace(".base_layer", "")
