"""Where a new run's weights come from: other runs, the language model's own folder, or chance."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from vlm.contracts.errors import InputError
from vlm.contracts.parts import ADAPTER, paths
from vlm.training.adapters import adapters_of, load_adapters
from vlm.training.weights import load_part, model_folder, reader_of


def load_given(
    model: Any, weights: Mapping[str, str | None], init_from: str | None, trained_adapters: Collection[str]
) -> None:
    """Fill a model made from its configuration, before its tokenizer is looked at.

    weights: part, or "adapter" for all adapters -> run or model folder.   init_from: gives the parts and adapters that
    `weights` does not name.   trained_adapters: these may begin from nothing.
    Raises: InputError for weights that are missing or do not fit, and for an adapter that would do nothing.
    """
    given = {part: source for part, source in weights.items() if source is not None}
    keys = {part: f"weights.{part}" for part in given}
    if init_from is not None:
        keys = dict.fromkeys((*model.parts, ADAPTER), "init_from") | keys
        given = dict.fromkeys((*model.parts, ADAPTER), init_from) | given
    for name in model.parts:
        part = getattr(model, name)
        if name in given:
            load_part(model, name, model_folder(given[name]), keys[name])
        elif hasattr(part, "load_pretrained"):
            part.load_pretrained()  # from the folder that its path names
    filled = load_adapters(model, model_folder(given[ADAPTER]), trained_adapters) if ADAPTER in given else set()
    for name in adapters_of(model):
        if name not in filled and name not in trained_adapters:
            raise InputError(
                f"llm.adapters.{name}: it is neither given nor trained, so it would do nothing; give the run that trained "
                f"it with weights.{ADAPTER}=RUN, or train it with phase.trainable.{ADAPTER}.{name}=RATE"
            )
    reader = reader_of(model.config)
    if reader in given and (learned := model_folder(given[reader]) / "tokenizer.json").exists():
        model.processor.tokenizer.load(learned)
    if hasattr(getattr(model, "connector", None), "match") and "connector" not in given:
        model.connector.match(embedding_rms(model.llm))


def trained_adapters(adapters: Collection[str], tree: Mapping[str, Any]) -> set[str]:
    """The adapters that a tree of rates trains, at least in part."""
    rates = paths(tree)

    def trains(name: str) -> bool:
        own = f"{ADAPTER}.{name}"
        if any(rate is not None for path, rate in rates.items() if f"{path}.".startswith(f"{own}.")):
            return True
        return own not in rates and rates.get(ADAPTER) is not None

    return {name for name in adapters if trains(name)}


def initialise(model: nn.Module) -> None:
    """Random weights for the parts that wait for given ones."""
    for part in model.children():
        if hasattr(part, "initialise"):
            part.initialise()  # type: ignore[operator]


@torch.no_grad()
def embedding_rms(llm: Any) -> float:
    """Root mean square over the language model's embedding table."""
    rows = torch.arange(llm.spec.vocabulary, device=next(llm.parameters()).device)
    return float(llm.embed(rows).float().square().mean().sqrt())
