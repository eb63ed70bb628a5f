"""What every phase shares: freezing, gradients as one mean over the whole step, and what a run tells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from vlm.contracts.batch import Batch
from vlm.contracts.errors import RunError
from vlm.contracts.fusion import Loss, Output
from vlm.contracts.settings import OptimizerSettings, ScheduleSettings
from vlm.data.loader import Loaded
from vlm.data.order import mixed
from vlm.training.optim import clip, make_optimizer, rate_factor
from vlm.training.trainable import Trainable


class Phase(lightning.LightningModule, ABC):
    """A Lightning module over an objective `loss(batch, output) -> Loss(total, count)`.

    Gradients of a step are those of (sum of all totals) / (sum of all counts) over its micro-batches and ranks, so
    1 x 8, 2 x 4 and 8 x 1 give the same step. `total_steps` and `accumulate` are set by the run before training.
    """

    total_steps = 1
    accumulate = 1

    def __init__(
        self,
        model: nn.Module,
        seed: int,
        trainable: Mapping[str, Any],
        aux: Mapping[str, float | None],
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
    ) -> None:
        super().__init__()
        self.model = model
        self.seed = seed
        self.trainable = Trainable(model, trainable)
        self.aux = {name: weight for name, weight in aux.items() if weight is not None}
        self.optimizer_settings, self.schedule_settings = optimizer, schedule
        self.window: list[dict[str, Tensor]] = []  # sums of the micro-batches since the last optimizer step
        self.keys: list[tuple[str, ...]] = []  # and their samples, to name them if the step breaks
        self.finished: list[dict[str, Tensor]] = []  # sums of the optimizer steps since the last logged row
        self.train()  # Lightning keeps each module's mode as it finds it

    @abstractmethod
    def loss(self, batch: Batch, output: Output) -> Loss:
        """The objective of one micro-batch as a sum and its count."""

    def validation_metrics(self) -> dict[str, float]:
        """What the validation that just ended found; `val/loss` chooses the best step."""
        return {}

    def objective(self, batch: Batch) -> Loss:
        """The phase's loss plus weighted aux terms. Raises: RunError for a weighted name that no part reports."""
        output = self.model(batch)
        loss = self.loss(batch, output)
        total, logs = loss.total, dict(loss.logs)
        for name, weight in self.aux.items():
            if name not in output.aux:
                known = ", ".join(sorted(output.aux)) or "none"
                raise RunError(f"phase.aux.{name}: no part reports this term (reported: {known}); set it to null")
            total = total + weight * output.aux[name] * loss.count
            logs[name] = output.aux[name].detach()
        return Loss(total=total, count=loss.count, logs=logs)

    # -- Lightning's calls ------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Phase:
        super().train(mode)
        self.trainable.set_mode(self.model, mode)
        return self

    def transfer_batch_to_device(self, batch: Loaded, device: torch.device, dataloader_idx: int) -> Loaded:
        dtype = next(self.model.parameters()).dtype
        ready = self.model.processor.finish(batch.batch.to(device), dtype)  # type: ignore[union-attr, operator]
        return replace(batch, batch=ready)

    def on_train_batch_start(self, batch: Loaded, batch_idx: int) -> None:
        # A pure function of the step, so that dropout after a resume is the same as without one.
        seed = mixed(self.seed, batch_idx, self.global_rank) >> 1
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also queues a call a step for absent devices
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def training_step(self, loaded: Loaded, batch_idx: int) -> Tensor:
        batch = loaded.batch
        loss = self.objective(batch)
        self.keys.append(batch.keys)
        self.window.append(
            {
                "total": loss.total.detach(),
                "count": loss.count.detach(),
                **{f"aux/{name}": value * loss.count for name, value in loss.logs.items()},
            }
        )
        # Lightning divides by the micro-batches of a step and DDP by the ranks; the count divides later, once.
        return loss.total * self.accumulate * self.trainer.world_size

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        sums = {name: sum((part[name] for part in self.window), torch.zeros(())) for name in self.window[0]}
        if self.trainer.world_size > 1:
            sums = {name: self.trainer.strategy.reduce(value, reduce_op="sum") for name, value in sums.items()}
        count = sums["count"].clamp_min(1)
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad /= count
        norm = clip(self.model, self.optimizer_settings)
        if not bool(torch.isfinite(norm) & torch.isfinite(sums["total"])):
            raise RunError(self._broken(float(sums["total"] / count), float(norm)))
        self.finished.append({**sums, "norm": norm})
        self.window, self.keys = [], []

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.trainable, self.optimizer_settings)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(step, self.total_steps, self.schedule_settings)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # -- what a run tells -------------------------------------------------------------------------------------

    def take_metrics(self) -> dict[str, float]:
        """Means over the optimizer steps since the last call."""
        steps, self.finished = self.finished, []
        if not steps:
            return {}
        count = max(1.0, float(sum(step["count"] for step in steps)))
        row = {"train/loss": float(sum(step["total"] for step in steps)) / count}
        for name in steps[0]:
            if name.startswith("aux/"):
                row[f"train/{name[4:]}"] = float(sum(step[name] for step in steps)) / count
        row["optim/grad_norm"] = float(sum(step["norm"] for step in steps)) / len(steps)
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            row[f"optim/rate/{group['path']}"] = group["lr"]
        return row

    def _broken(self, loss: float, norm: float) -> str:
        keys = [key for batch in self.keys for key in batch]
        return (
            f"step {self.global_step}: loss {loss} and gradient norm {norm} are not both finite, so the step was not "
            f"taken; its samples are {', '.join(keys[:8])}{' …' if len(keys) > 8 else ''} (all in failed_batch.json); "
            "look at them, or lower the rates in phase.trainable; the same command would meet the same step again"
        )
