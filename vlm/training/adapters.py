"""Adapters as folders in PEFT's own form: model/adapters/<name>/{adapter_config.json,adapter_model.safetensors}."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from vlm.contracts.errors import InputError
from vlm.contracts.recipe import LoraSettings
from vlm.contracts.settings import BaseSettings
from vlm.models.llms.adapters import adapter_tensors, peft_config
from vlm.models.llms.base import fingerprint
from vlm.training.bases import saved_base
from vlm.training.tensors import differences, fill, in_short, own_tensors, read_tensors

ADAPTERS, CONFIG, WEIGHTS = "adapters", "adapter_config.json", "adapter_model.safetensors"


def adapters_of(model: Any) -> tuple[str, ...]:
    """Names of a model's adapters, lowest first."""
    return getattr(getattr(model, "llm", None), "adapters", ())


def write_adapter(
    folder: Path, settings: Mapping[str, Any], tensors: dict[str, Tensor], base: BaseSettings | None
) -> None:
    """As PEFT writes it; opens with PeftModel.from_pretrained on the language model."""
    config = peft_config(LoraSettings(**settings))
    config.base_model_name_or_path, config.inference_mode = None if base is None else base.path, True
    folder.mkdir(parents=True)
    config.save_pretrained(str(folder))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_adapters(model: Any, folder: Path, new: Collection[str]) -> set[str]:
    """Fill the adapters from a model folder, after the language model. Returns: the names of those that were filled.

    new: adapters that the folder need not have.
    Raises: InputError for another adapter that it lacks, for one that the model lacks, and for one of another shape,
    scale or language model.
    """
    there = {path.parent.name for path in folder.glob(f"{ADAPTERS}/*/{CONFIG}")}
    names = adapters_of(model)
    if lost := sorted(there.difference(names)):
        raise InputError(
            f"weights.adapter: {folder} has the adapter {', '.join(lost)}, which this model does not have, so it would be "
            f"lost; choose adapter=NAME with {', '.join(sorted(there))}, or merge it first (experiments.export to=merged)"
        )
    if lacking := [name for name in names if name not in there and name not in new]:
        found = f"it has {', '.join(sorted(there))}" if there else "it has none"
        raise InputError(
            f"weights.adapter: {folder} has no adapter {', '.join(lacking)} ({found}), and this run does not train it; "
            "give the run that trained it, or train it here"
        )
    for name in (name for name in names if name in there):
        _load(model, name, folder)
    if there:
        _same_base(model, folder)
    return there


def _load(model: Any, name: str, folder: Path) -> None:
    home = folder / ADAPTERS / name
    settings = model.config["llm"]["adapters"][name]
    try:
        given = json.loads((home / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{home / CONFIG} cannot be read ({error}); copy the folder again") from error
    wanted = adapter_tensors(model.llm, name)
    tensors = read_tensors(home / WEIGHTS, f"adapter {name}")
    if faults := differences(wanted, tensors):
        of = given.get("base_model_name_or_path") or "another language model"
        raise InputError(
            f"weights.adapter: {home} was trained on {of} and does not fit here; either this is another language model, or "
            f"llm.adapters.{name} has other sizes or targets: {in_short(faults)}; "
            f"name the language model that it was trained on, or give llm.adapters.{name} what {home / CONFIG} says"
        )
    if (alpha := given.get("lora_alpha")) != settings["alpha"]:
        raise InputError(
            f"llm.adapters.{name}.alpha: {settings['alpha']:g} is given, but {home} was trained with {alpha:g}; a scale is "
            "part of what was learned: set the same"
        )
    fill(wanted, tensors, str(home / WEIGHTS))


def _same_base(model: Any, folder: Path) -> None:
    """An adapter means nothing on other weights than those that it was trained on."""
    base, file = saved_base(folder), folder / "llm.safetensors"
    theirs = base.fingerprint if base else fingerprint(read_tensors(file, "llm")) if file.exists() else None
    own = getattr(model.llm, "base", None)
    ours = own.fingerprint if own else fingerprint(own_tensors(model.llm))
    if theirs is not None and theirs != ours:
        where = base.path if base else file
        raise InputError(
            f"weights.adapter: the adapters of {folder} were trained on the language model in {where}, and this run has "
            f"another one{f' ({own.path})' if own else ''}; "
            + (f"set llm.path={base.path}" if base else f"give it with weights.llm={folder} too")
        )
