"""Low-rank adapters around a decoder's linear layers: a stack of them, all at work together."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vlm.contracts.errors import InputError
from vlm.contracts.parts import ADAPTER, logical
from vlm.contracts.recipe import LoraSettings
from vlm.models.llms.quantize import load_for_peft

PREFIX = "base_model.model."  # of every tensor in a PEFT file


def put_around(decoder: nn.Module, adapters: Mapping[str, LoraSettings]) -> None:
    """Each adapter in turn around the layers that it names; it starts at zero, so the values stay what they were.

    Adapters have memory also where the decoder has none yet (meta). What trains is not touched.
    """
    if not adapters:
        return
    load_for_peft()
    from peft import inject_adapter_in_model  # takes seconds

    flags = [(parameter, parameter.requires_grad) for parameter in decoder.parameters()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a stack is what is wanted
        for name, settings in adapters.items():
            inject_adapter_in_model(peft_config(settings), decoder, adapter_name=name)
    if torch.get_default_device().type != "meta":
        for layer in adapted_layers(decoder).values():
            for name in [name for name in adapters if name in layer.lora_A]:
                for half in (layer.lora_A[name], layer.lora_B[name]):
                    half.to_empty(device=torch.get_default_device())
                layer.reset_lora_parameters(name, True)
    activate(decoder, list(adapters))
    for name, parameter in decoder.named_parameters():
        if logical(name).startswith(f"{ADAPTER}."):
            parameter.requires_grad_(True)
    for parameter, flag in flags:
        parameter.requires_grad_(flag)


def peft_config(settings: LoraSettings) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        task_type="CAUSAL_LM",
    )


def adapted_layers(decoder: nn.Module) -> dict[str, Any]:
    """The layers that have adapters, by the names that they had before."""
    return {
        name: module
        for name, module in decoder.named_modules()
        if hasattr(module, "lora_A") and hasattr(module, "base_layer")
    }


def activate(decoder: nn.Module, names: list[str]) -> None:
    """These adapters and no others. Leaves none of them trainable: who calls puts the flags back."""
    for layer in adapted_layers(decoder).values():
        layer.set_adapter(names, inference_mode=True)


@contextlib.contextmanager
def without_uppermost(decoder: nn.Module, adapters: tuple[str, ...]) -> Iterator[None]:
    """The decoder as it is without its last adapter. No forward made here may be recomputed later.

    Raises: InputError if there is no adapter.
    """
    if not adapters:
        raise InputError(
            "llm.adapters: the language model has no adapter, so there is no model below; add one, for example adapter=dpo_r16"
        )
    flags = [(parameter, parameter.requires_grad) for parameter in decoder.parameters()]
    activate(decoder, list(adapters[:-1]))
    try:
        yield
    finally:
        activate(decoder, list(adapters))
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def adapter_tensors(llm: nn.Module, name: str) -> dict[str, Tensor]:
    """The tensors of one adapter under the names that PEFT's files give them."""
    own = f"{ADAPTER}.{name}."
    state = ((logical(key), tensor) for key, tensor in llm.state_dict(keep_vars=True).items())
    return {PREFIX + key.removeprefix(own): tensor.detach() for key, tensor in state if key.startswith(own)}


@torch.no_grad()
def merge_adapters(model: Any) -> dict[str, Tensor]:
    """The language model's tensors with all its adapters added in, under the names of its folder.

    Sums are made in float32 at least; a tensor keeps its type. Of a quantized model the unquantized folder is read again.
    Raises: InputError if there is only a quantized base: adding to it would round the adapters away.
    """
    llm = model.llm
    layers = {f"model.{name}.weight": layer for name, layer in adapted_layers(llm.model).items()}
    merged: dict[str, Tensor] = {}
    for name, tensor in llm.unquantized():
        total = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        if name in layers:
            deltas = {key: layers[name].get_delta_weight(key) for key in layers[name].lora_A}
            for key in (key for key in llm.adapters if key in deltas):
                total = total + deltas[key].to(total)
        merged[name] = total.to(tensor.dtype)
    return merged
