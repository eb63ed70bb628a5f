"""Language models with their large frozen weights in four bits."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

from vlm.contracts.errors import InputError

REMEDY = 'install it with: pip install -c constraints.txt "bitsandbytes", or choose an llm without quantize'


def quantize(decoder: nn.Module) -> None:
    """Put an NF4 layer, still without weights, in the place of every linear layer.

    decoder: without embedding table and head, which stay as they are.
    Raises: InputError if bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f"llm.quantize: nf4 needs the library bitsandbytes, which is not here; {REMEDY}")
    from vlm.models.llms.nf4 import NF4Linear

    with torch.device("meta"):
        for module in list(decoder.modules()):
            for name, layer in list(module.named_children()):
                if type(layer) is nn.Linear:
                    setattr(module, name, NF4Linear(layer.in_features, layer.out_features, layer.bias is not None))


def is_quantized(part: nn.Module) -> bool:
    return any(hasattr(parameter, "quant_state") for parameter in part.parameters())


def shape_of(parameter: Any) -> torch.Size:
    """Of the weights that a parameter stands for; a packed one holds several in each of its numbers."""
    state = getattr(parameter, "quant_state", None)
    return parameter.shape if state is None else state.shape
