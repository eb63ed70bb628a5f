"""A linear layer whose frozen weights are kept in four bits."""

from __future__ import annotations

from typing import Any

import bitsandbytes
import torch
from bitsandbytes.functional import QuantState, dequantize_4bit
from torch import Tensor, nn

UNPACKED = (torch.float32, torch.bfloat16, torch.float16)  # types that the library unpacks to


class NF4Linear(bitsandbytes.nn.Linear4bit):
    """x [..., inputs] -> [..., outputs], as nn.Linear in the type of x, or that of autocast.

    NF4 with double quantization: 4.127 bits a weight. The state dict holds the packed numbers without their scales, as
    such weights are never saved: they come from an unquantized folder each time.
    Source: Dettmers et al. 2023.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__(inputs, outputs, bias=bias, compress_statistics=True, quant_type="nf4")

    def pack(self, weight: Tensor) -> None:
        """Quantize `weight` [outputs, inputs]; on the device that it lies on."""
        kind: Any = bitsandbytes.nn.Params4bit  # whose arguments type checkers do not see
        packed = kind(
            weight.detach().float(), requires_grad=False, compress_statistics=True, quant_type="nf4", module=self
        )
        self.weight = packed.to(weight.device)

    def unpacked(self) -> Tensor:
        """The weights that are computed with, float32 [outputs, inputs]."""
        return _unpacked(self.weight, self.quant_state, torch.float32)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        # Not the library's own product: with and without gradients it takes two ways that round differently, and a
        # policy would not start equal to its reference. On some processors it also repacks the weights on the way.
        product = _Product.apply(x.to(dtype), self.weight, self.quant_state)
        return product if self.bias is None else product + self.bias.to(dtype)  # type: ignore[operator, return-value]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        nn.Module._save_to_state_dict(self, destination, prefix, keep_vars)


class _Product(torch.autograd.Function):
    """x W', with W unpacked once for each way and kept by nobody."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, state: QuantState) -> Tensor:  # type: ignore[override]
        ctx.weight, ctx.state = weight, state
        return nn.functional.linear(x, _unpacked(weight, state, x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return gradient @ _unpacked(ctx.weight, ctx.state, gradient.dtype), None, None


def _unpacked(weight: Tensor, state: QuantState, dtype: torch.dtype) -> Tensor:
    state.dtype = dtype if dtype in UNPACKED else torch.float32  # of the result; the packed form has none
    return dequantize_4bit(weight.detach(), state).to(dtype)
