"""By what a language model's own weights are known again, whatever type, file or quantization they come in."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

PLACES = 1024  # of each tensor that are looked at, evenly spread
DIGITS = 16


class Fingerprint:
    """Of tensors by name, in any order. Values count as rounded to bfloat16, so that a float32 copy is the same model."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        flat = tensor.detach().flatten()
        places = torch.linspace(0, max(0, flat.numel() - 1), min(PLACES, flat.numel()), dtype=torch.float64)
        values = flat[places.long().to(flat.device)].to(torch.bfloat16).float().cpu()
        digest = hashlib.sha256(f"{name} {list(tensor.shape)}".encode())
        digest.update(values.numpy().tobytes())
        self._parts[name] = digest.hexdigest()

    @property
    def value(self) -> str:
        listing = "\n".join(f"{name} {self._parts[name]}" for name in sorted(self._parts))
        return hashlib.sha256(listing.encode()).hexdigest()[:DIGITS]


def fingerprint(tensors: dict[str, Tensor]) -> str:
    found = Fingerprint()
    for name, tensor in tensors.items():
        found.add(name, tensor)
    return found.value
