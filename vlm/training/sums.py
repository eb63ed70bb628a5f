"""What the micro-batches of a step add up to, over all ranks in one exchange."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import lightning
import torch
from torch import Tensor

from vlm.contracts.fusion import Loss
from vlm.data.loader import Loaded


class Sums:
    """Named numbers that add up: `total` and `count` of the loss, `aux/<term>`, and what was read.

    samples, tokens, rows_read, skipped, cut; set/<i>/samples and set/<i>/tokens for each of `sets` sets of the mix.
    """

    def __init__(self, sets: int = 0, numbers: Mapping[str, float] | None = None) -> None:
        read = [f"set/{number}/{what}" for number in range(sets) for what in ("samples", "tokens")]
        self._values: dict[str, Tensor | float] = {**dict.fromkeys(read, 0.0), **(numbers or {})}

    def __getitem__(self, name: str) -> float:
        return float(self._values.get(name, 0.0))

    def add(self, name: str, value: Tensor | float) -> None:
        self._values[name] = self._values.get(name, 0.0) + value

    def add_loss(self, loss: Loss) -> None:
        self.add("total", loss.total.detach())
        self.add("count", loss.count.detach())
        for name, value in loss.logs.items():
            self.add(f"aux/{name}", value * loss.count)

    def add_rows(self, loaded: Loaded) -> None:
        batch = loaded.batch
        owner = batch.sample[batch.segment[batch.segment >= 0]]
        tokens = torch.bincount(owner, minlength=len(loaded.sources)).tolist()
        by_set: dict[int, int] = dict.fromkeys(loaded.sources, 0)
        for source, count in zip(loaded.sources, tokens, strict=True):
            by_set[source] += count
        for source, count in by_set.items():
            self.add(f"set/{source}/samples", loaded.sources.count(source))
            self.add(f"set/{source}/tokens", count)
        self.add("samples", len(loaded.sources))
        self.add("tokens", sum(tokens))
        self.add("rows_read", len(loaded.sources) + len(loaded.skipped))
        self.add("skipped", len(loaded.skipped))
        self.add("cut", loaded.cut)

    def named(self, prefix: str) -> Iterator[str]:
        return (name for name in self._values if name.startswith(prefix))

    def over_ranks(self, trainer: lightning.Trainer) -> Sums:
        """The same over all ranks, which know the same names: parts report the same terms whatever the batch."""
        if trainer.world_size == 1:
            return self
        numbers = torch.tensor(
            [self[name] for name in self._values], dtype=torch.float64, device=trainer.strategy.root_device
        )
        whole = trainer.strategy.reduce(numbers, reduce_op="sum").tolist()
        return Sums(numbers=dict(zip(self._values, whole, strict=True)))

    def include(self, other: Sums) -> None:
        for name, value in other.numbers().items():
            self.add(name, value)

    def numbers(self) -> dict[str, float]:
        return {name: float(value) for name, value in self._values.items()}
