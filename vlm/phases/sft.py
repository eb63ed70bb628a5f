"""Supervised fine-tuning: the next token of answers, or of all text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vlm.contracts.batch import Batch
from vlm.contracts.fusion import Loss, Output
from vlm.contracts.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from vlm.contracts.recipe import KeepSettings, LanguageLossSettings, OptimizerSettings, ScheduleSettings
from vlm.data.loader import Loaded
from vlm.evaluation.intervals import paired_gain
from vlm.losses.language import language_loss, sample_nll
from vlm.phases.base import Phase
from vlm.training.sharding import from_all_ranks


class SFT(Phase):
    """Trains on answers (or all text) and, at every validation, asks whether the pictures were used."""

    nodes = ("llm",)

    def __init__(
        self,
        model: nn.Module,
        seed: int,
        global_batch: PositiveInt,
        max_steps: PositiveInt | None,
        epochs: PositiveFloat | None,
        log_every: PositiveInt,
        validate_every: PositiveInt,
        save_every: PositiveInt,
        keep: KeepSettings,
        targets: Literal["answers", "all"],
        samples: NonNegativeInt,
        trainable: Mapping[str, Any],
        aux: dict[str, NonNegativeFloat | None],
        loss: LanguageLossSettings,
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
    ) -> None:
        super().__init__(model, seed, trainable, aux, optimizer, schedule, keep)
        self.all_text = targets == "all"
        self.reduction: Literal["token", "sample"] = loss.reduction
        self.seen: dict[int, list[np.ndarray]] = {}  # by number of the batch, the same whatever rank read it

    def loss(self, batch: Batch, output: Output) -> Loss:
        assert output.logp is not None
        return language_loss(output.logp, batch, self.reduction)

    def validation_step(self, loaded: Loaded, batch_idx: int) -> None:
        """Loss of each sample with its own pictures and with other samples' pictures."""
        batch = self.ready(loaded)
        nll, tokens = sample_nll(self.model(batch).logp, batch)
        columns = [nll, tokens, torch.tensor([len(loaded.skipped)])]
        if self.model.processor.tokens_a_view:  # type: ignore[union-attr]
            columns += self._without_its_pictures(batch, nll, tokens)
        number = batch_idx * self.trainer.world_size + self.global_rank
        self.seen[number] = [column.detach().cpu().numpy() for column in columns]

    def _without_its_pictures(self, batch: Batch, nll: Tensor, tokens: Tensor) -> list[Tensor]:
        """What each sample loses with others' pictures, whether all of its pictures were exchanged, and its cluster."""
        other = other_pictures(batch.pictures)
        blinded, _ = sample_nll(self.model(replace(batch, views=batch.views[other])).logp, batch)
        # A sample counts for the gain if it has pictures and each of them was exchanged for a different one.
        changed = batch.pictures[other] != batch.pictures
        exchanged = torch.zeros_like(tokens, dtype=torch.bool)
        cluster = torch.full_like(tokens, -1)
        if batch.slots.numel():
            rows, views = batch.slots.unbind(1)
            unchanged = torch.zeros_like(tokens).index_add(0, rows, (~changed[views]).to(tokens.dtype))
            exchanged[rows] = True
            exchanged &= unchanged == 0
            cluster[rows] = batch.pictures[views]
        return [blinded - nll, exchanged, cluster]

    def on_validation_epoch_start(self) -> None:
        self.seen = {}

    def validation_metrics(self) -> dict[str, float]:
        """val/loss in nats a token; val/vision_gain with its standard error, clustered by picture."""
        seen = {number: row for part in from_all_ranks(self.trainer, self.seen) for number, row in part.items()}
        rows = [seen[number] for number in sorted(seen)][: self.validation_batches]  # beyond, the last one repeated
        nll, tokens, skipped, *pictures = (np.concatenate(column) for column in zip(*rows, strict=True))
        row = {"val/loss": float(nll.sum() / max(1, tokens.sum())), "val/samples": float(len(nll))}
        if skipped.any():
            row["val/skipped"] = float(skipped.sum())
        if pictures and pictures[1].any():
            delta, exchanged, cluster = pictures
            gain, error = paired_gain(
                delta[exchanged].astype(np.float64), tokens[exchanged].astype(np.float64), cluster[exchanged]
            )
            row |= {"val/vision_gain": gain, "val/vision_gain_se": error}
        return row


def other_pictures(pictures: Tensor) -> Tensor:
    """pictures [N] -> index [N] of another view for each, of a different picture wherever that is possible."""
    n = pictures.numel()
    place = torch.arange(n, device=pictures.device)
    best, missed = place, n + 1
    for shift in range(1, n):
        candidate = (place + shift) % n
        same = int((pictures[candidate] == pictures).sum())
        if same < missed:
            best, missed = candidate, same
        if same == 0:
            break
    return best
