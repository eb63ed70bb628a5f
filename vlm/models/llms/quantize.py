"""Language models with their large frozen weights in four bits."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from vlm.contracts.errors import InputError

LIBRARY = "bitsandbytes"
INSTALL = f"install it with: pip install --force-reinstall --no-deps -c constraints.txt {LIBRARY}"
REMEDY = f"{INSTALL}, or leave the weights as they are with llm.quantize=null"
# It misses a kernel for products of its own, which are not used here (vlm/models/llms/nf4.py).
REMARK = ("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward")


def four_bit_layer() -> Any:
    """The class of layers. Raises: InputError if the library that keeps the numbers is not there, or does not load."""
    if importlib.util.find_spec(LIBRARY) is None:
        raise InputError(f"llm.quantize: nf4 needs the library {LIBRARY}, which is not here; {REMEDY}")
    with loading(f"llm.quantize: nf4 needs the library {LIBRARY}", REMEDY):
        from vlm.models.llms.nf4 import NF4Linear
    return NF4Linear


def load_for_peft() -> None:
    """PEFT loads the library wherever it is installed, also without quantization. Raises: InputError if it is broken."""
    if importlib.util.find_spec(LIBRARY) is not None:
        with loading(
            f"llm.adapters: PEFT loads the library {LIBRARY}", f"{INSTALL}, or remove it with: pip uninstall {LIBRARY}"
        ):
            importlib.import_module(LIBRARY)


@contextlib.contextmanager
def loading(why: str, remedy: str) -> Iterator[None]:
    """Around the library's import. Raises: InputError for whatever a broken installation raises: ImportError, OSError, ..."""
    logger, told = logging.getLogger(REMARK[0]), _is_worth_telling
    logger.addFilter(told)
    try:
        yield
    except Exception as error:
        message = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        raise InputError(f"{why}, which is here and cannot be loaded ({message}); {remedy}") from error
    finally:
        logger.removeFilter(told)


def _is_worth_telling(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(REMARK[1])


def quantize(decoder: nn.Module, layer_class: Any) -> None:
    """Put a `four_bit_layer`, still without weights, in the place of every linear layer.

    decoder: without embedding table and head, which stay as they are.
    """
    with torch.device("meta"):
        for module in list(decoder.modules()):
            for name, layer in list(module.named_children()):
                if type(layer) is nn.Linear:
                    setattr(module, name, layer_class(layer.in_features, layer.out_features, layer.bias is not None))


def is_quantized(part: nn.Module) -> bool:
    return any(hasattr(parameter, "quant_state") for parameter in part.parameters())


def shape_of(parameter: Any) -> torch.Size:
    """Of the weights that a parameter stands for; a packed one holds several in each of its numbers."""
    state = getattr(parameter, "quant_state", None)
    return parameter.shape if state is None else state.shape
