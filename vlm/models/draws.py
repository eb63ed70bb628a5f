"""Sampling that no batch changes: each row draws from random numbers of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

LEAST = torch.finfo(torch.float64).tiny  # of a uniform draw, whose logarithm must be finite


class Draws:
    """transformers' LogitsProcessor: ids, scores [R, V] -> scores / temperature + Gumbel noise, [R, V].

    The greatest of these is a draw from softmax(scores / temperature), so greedy decoding of them samples. Row r's
    noise comes from (seed, keys[r]) and the number of the step alone, made on the CPU: the same on every device and
    beside any other rows. Rows of one key draw alike.
    Source: the Gumbel-max trick (Gumbel 1954; Maddison et al. 2014).
    """

    def __init__(self, keys: Sequence[str], seed: int, temperature: float) -> None:
        self.generators = [torch.Generator().manual_seed(_number(seed, key)) for key in keys]
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.stack(
            [torch.rand(scores.shape[1], generator=one, dtype=torch.float64) for one in self.generators]
        )
        noise = -(-uniform.clamp(min=LEAST).log()).log()
        return scores / self.temperature + noise.to(scores.device, scores.dtype)


def _number(seed: int, key: str) -> int:
    """63 bits, as generators take them."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1
