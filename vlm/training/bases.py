"""A language model that stays in the folder it came from: what a saved model says of it, and how it is found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from vlm.contracts.errors import InputError, RunError
from vlm.contracts.parts import ADAPTER, logical
from vlm.contracts.settings import BaseSettings
from vlm.models.llms.base import fingerprint
from vlm.models.llms.quantize import is_quantized
from vlm.training.tensors import own_tensors


def staying(part: nn.Module) -> BaseSettings | None:
    """The folder that a part's weights came from and can stay in; None if they are saved with the model.

    Raises: RunError for quantized weights that came from no folder: they are never saved.
    """
    base = getattr(part, "base", None)
    trains = any(
        parameter.requires_grad
        for name, parameter in part.named_parameters()
        if not logical(name).startswith(f"{ADAPTER}.")
    )
    if is_quantized(part):
        if base is None or trains:
            why = "trained" if base is not None else "not taken from a folder"
            raise RunError(f"llm.quantize: a quantized language model cannot be saved, and this one was {why}")
        return base
    if base is None or trains:
        return None
    tensors = own_tensors(part)
    is_sharded = any(hasattr(tensor, "full_tensor") for tensor in tensors.values())
    return base if is_sharded or fingerprint(tensors) == base.fingerprint else None


def saved_base(folder: Path) -> BaseSettings | None:
    """Of a saved model. A path that is not absolute lies in its folder."""
    found = json.loads((folder / "config.json").read_text()).get("base")
    return None if found is None else BaseSettings(str(folder / found["path"]), found["fingerprint"])


def load_configured_base(llm: Any, base: BaseSettings, folder: Path) -> None:
    """From the folder that the configuration names, if it holds the model that the saved one was made on."""
    if not hasattr(llm, "load_pretrained"):
        raise InputError(
            f"weights.llm: the language model of {folder} was left in {base.path}; choose llm=hf_causal llm.path={base.path}"
        )
    llm.load_pretrained()
    if llm.base.fingerprint != base.fingerprint:
        raise InputError(
            f"llm.path: {llm.base.path} holds other weights than {base.path}, on which {folder} was made; name that folder"
        )


def load_saved_base(llm: Any, base: BaseSettings, folder: Path) -> None:
    """From the folder that a saved model names. What comes from there is frozen until a phase trains it."""
    remedy = f"put it back, or write the folder where it is now as base.path into {folder / 'config.json'}"
    if not (Path(base.path) / "config.json").is_file():
        raise InputError(f"{base.path}, which holds the language model of {folder}, is not there; {remedy}")
    llm.load_pretrained(base.path)
    if llm.base.fingerprint != base.fingerprint:
        raise InputError(f"{base.path} holds other weights than the language model of {folder} had; {remedy}")
    for parameter in llm.weights().values():
        parameter.requires_grad_(False)
