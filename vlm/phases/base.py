"""What every phase shares: freezing, gradients as one mean over the whole step, and what a run tells."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from vlm.contracts.batch import Batch
from vlm.contracts.errors import BrokenStep, RunError
from vlm.contracts.fusion import Loss, Output
from vlm.contracts.recipe import KeepSettings, OptimizerSettings, ScheduleSettings
from vlm.data.loader import Loaded, Step
from vlm.data.order import mixed
from vlm.training.optim import clip, make_optimizer, make_schedule
from vlm.training.sharding import shard
from vlm.training.sums import Sums
from vlm.training.trainable import Trainable


class Phase(lightning.LightningModule, ABC):
    """A Lightning module over an objective `loss(batch, output) -> Loss(total, count)`.

    One call of `training_step` is one optimizer step. Its gradients are those of (sum of all totals) / (sum of all
    counts) over its micro-batches and ranks, so 1 x 8, 2 x 4 and 8 x 1 give the same step. `total_steps`, `sets`
    and `validation_batches` are set by the run before training; `step` counts the optimizer steps taken, also before a resume.
    """

    nodes = begins = ()  # what a model must have for this phase, and what of it must not begin at random
    measures = ()  # metrics of its validations, beside val/loss, of which more is better: phase.keep.by may name them
    all_text = False  # whether user text carries loss, too
    pairs = False  # whether rows are read as preference pairs
    validates_first = False  # whether a run begins with a validation, before its first step
    total_steps = 1
    step = 0
    sets = 1  # of the training mix
    validation_batches: int | None = None  # of all ranks together
    watch: Callable[[nn.Module], Mapping[str, float]] = staticmethod(
        lambda model: {}
    )  # further metrics, set by the run
    asked_to_stop = False  # by a signal to this process; all ranks hear of it at the end of the step

    def __init__(
        self,
        model: nn.Module,
        seed: int,
        trainable: Mapping[str, Any],
        aux: Mapping[str, float | None],
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
        keep: KeepSettings,
    ) -> None:
        super().__init__()
        self.keep = keep
        self.automatic_optimization = False
        self.model = model
        self.seed = seed
        self.trainable = Trainable(model, trainable)
        self.aux = {name: weight for name, weight in aux.items() if weight is not None}
        self.optimizer_settings, self.schedule_settings = optimizer, schedule
        self.frozen = self.recipe = ""  # fingerprints of what does not train and of the recipe, set by the run
        self.working_on: Step | None = None  # the step under way, to name its samples and sizes if it breaks
        self.last = Sums()  # of the last optimizer step
        self.unlogged = Sums()  # of the optimizer steps since the last logged row; part of a run's state
        self.validated: dict[str, float] = {}  # metrics of the last validation
        self.validated_at: int | None = None  # and its step
        self.train()  # Lightning keeps each module's mode as it finds it

    @abstractmethod
    def loss(self, batch: Batch, output: Output) -> Loss:
        """The objective of one micro-batch as a sum and its count."""

    def validation_metrics(self) -> dict[str, float]:
        """What the validation that just ended found; `val/loss` unless `keep.by` says otherwise chooses the best step. Every rank calls it."""
        return {}

    def judge(self) -> None:
        """Looks at the validation that just ended and was written down. Raises: RunError, on every rank, to end the run."""

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

    def configure_model(self) -> None:
        shard(self.model, self)

    def train(self, mode: bool = True) -> Phase:
        super().train(mode)
        self.trainable.set_mode(self.model, mode)
        return self

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # a step moves its micro-batches one by one

    def ready(self, loaded: Loaded) -> Batch:
        """The batch on this device, its views as the encoder takes them."""
        dtype = next(self.model.parameters()).dtype
        return self.model.processor.finish(loaded.batch.to(self.device), dtype)  # type: ignore[union-attr, operator]

    def training_step(self, step: Step, batch_idx: int) -> None:
        self.working_on = step
        sums = self.accumulate(step)
        for loaded in step.micro_batches:
            sums.add_rows(loaded)
        sums.add("asked_to_stop", float(self.asked_to_stop))
        self._take_step(sums.over_ranks(self.trainer))

    def accumulate(self, step: Step) -> Sums:
        """Leaves in `.grad` the gradients of the sum of all totals of a step. Returns: this rank's totals and counts."""
        sums = Sums(self.sets)
        for number, loaded in enumerate(step.micro_batches):
            self.draw_for(number)
            batch = self.ready(loaded)
            with self.exchanging(is_last=number + 1 == len(step.micro_batches)):
                loss = self.objective(batch)
                # DDP and FSDP take the mean over ranks; the count of the whole step divides later, once.
                self.manual_backward(loss.total * self.trainer.world_size)
            sums.add_loss(loss)
        return sums

    def _take_step(self, sums: Sums) -> None:
        count = max(1.0, sums["count"])
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad /= count
        norm = float(clip(self.model, self.optimizer_settings))
        if not torch.isfinite(torch.tensor([norm, sums["total"]])).all():
            raise BrokenStep(self._broken(sums["total"] / count, norm))
        optimizer: Any = self.optimizers()
        optimizer.step()
        optimizer.zero_grad()
        self.lr_schedulers().step()  # type: ignore[union-attr, call-arg]
        average_buffers(self.model, self.trainer)
        sums.add("norm", norm)
        sums.add("steps", 1)
        self.last = sums
        self.unlogged.include(sums)
        self.step += 1
        self.asked_to_stop = sums["asked_to_stop"] > 0
        self.working_on = None

    def on_validation_epoch_end(self) -> None:
        self.validated = {**self.validation_metrics(), **self.watch(self.model)}
        self.validated_at = self.step

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.model, self.trainable, self.optimizer_settings)
        schedule = make_schedule(optimizer, self.total_steps, self.schedule_settings)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # -- what a run tells -------------------------------------------------------------------------------------

    def take_metrics(self) -> dict[str, float]:
        """Means over the optimizer steps since the last call."""
        sums, self.unlogged = self.unlogged, Sums()
        count = max(1.0, sums["count"])
        row = {"train/loss": sums["total"] / count}
        for name in sums.named("aux/"):
            row[f"train/{name[4:]}"] = sums[name] / count
        row["optim/grad_norm"] = sums["norm"] / max(1.0, sums["steps"])
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            row[f"optim/rate/{group['path']}"] = group["lr"]
        return row

    def draw_for(self, number: int) -> None:
        """Seeds what micro-batch `number` of this rank draws in the step under way.

        Which micro-batch of the step it is does not depend on the number of ranks, and so neither do its draws.
        """
        seed = mixed(self.seed, self.step, number * self.trainer.world_size + self.global_rank)
        torch.default_generator.manual_seed(seed >> 1)  # torch.manual_seed also queues a call for absent devices
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed >> 1)

    def exchanging(self, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """Around the backward of a micro-batch: DDP exchanges gradients once a step, with the last one."""
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy) and not is_last:
            return strategy.block_backward_sync()
        return contextlib.nullcontext()

    @property
    def keys(self) -> list[str]:
        """Samples of the step under way."""
        step = self.working_on or Step()
        return [key for loaded in step.micro_batches for key in loaded.batch.keys]

    def _broken(self, loss: float, norm: float) -> str:
        keys = self.keys
        return (
            f"step {self.step}: loss {loss} and gradient norm {norm} are not both finite, so the step was not "
            f"taken; its samples are {', '.join(keys[:8])}{' …' if len(keys) > 8 else ''} (all in "
            "failed_batch.json); look at them, or lower the rates in phase.trainable; the same command would meet the "
            "same step again"
        )


def average_buffers(model: nn.Module, trainer: lightning.Trainer) -> None:
    """Moving statistics (BatchNorm) of trained modules become the mean over ranks, so that all keep the same model."""
    if trainer.world_size == 1:
        return
    for module in model.modules():
        for buffer in module.buffers(recurse=False) if module.training else ():
            if buffer.is_floating_point():
                buffer.copy_(trainer.strategy.reduce(buffer, reduce_op="mean"))
