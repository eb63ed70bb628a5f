"""Weights without a random generator: value = std * sqrt(2) * sin(0.37 (i+1)(k+1) + (k+1))."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def sine(number: int, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Tensor `number` of a listing: scale * sin(...) over its flat row-major index, float64."""
    index = np.arange(int(np.prod(shape)))
    return (scale * np.sin(0.37 * (index + 1) * (number + 1) + (number + 1))).reshape(shape)


def assign(parameter: Tensor, value: np.ndarray) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(value))
