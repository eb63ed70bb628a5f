"""Direct preference optimization: a model learns which of two answers is better, held by what it was at the start."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vlm.contracts.batch import Batch
from vlm.contracts.errors import ConfigError, Problem, RunError
from vlm.contracts.fusion import Loss, Output
from vlm.contracts.parts import ADAPTER, logical
from vlm.contracts.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from vlm.contracts.recipe import (
    GuardSettings,
    KeepSettings,
    OptimizerSettings,
    PreferenceLossSettings,
    ScheduleSettings,
)
from vlm.data.loader import Loaded
from vlm.losses.preference import answers, at_start, compare, preference_loss
from vlm.phases.base import Phase
from vlm.phases.corrupted import chosen_alone, enlarged
from vlm.phases.guards import REMEDY, Guards
from vlm.training.callbacks import Saver
from vlm.training.checkpoint import all_of, step_of
from vlm.training.sharding import from_all_ranks
from vlm.training.sums import Sums

# How far the first loss may lie from its exact value (relative above 1), and the models apart (kl, nats a token): a new
# adapter adds exact zeros, so only kernels that sum in another order move anything.
EXACT, ROUNDED = (1e-4, 1e-6), (1e-2, 1e-3)
SCORE, KNOWN, SOUND = "guard/score", "guard/known", "guard/sound_at"


class DPO(Phase):
    """Both answers are branches of one picture and prompt.

    reference: "adapter" = the model without its uppermost adapter, which alone trains; views are encoded once for both.
    "copy" = a frozen copy of the weights that the run begins with, for models that train as a whole.
    Before the first optimizer step the loss must have the value of two equal models, and every validation is held
    against `guards`.
    """

    nodes = begins = ("llm",)
    measures = ("val/reward_accuracy", "val/reward_margin")
    pairs = True
    validates_first = True  # where guards compare from

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
        samples: NonNegativeInt,
        trainable: Mapping[str, Any],
        reference: Literal["adapter", "copy"],
        loss: PreferenceLossSettings,
        guards: GuardSettings,
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
    ) -> None:
        """Raises: ConfigError where an adapter is the difference, and there is none, or anything else trains."""
        adapter = uppermost(model) if reference == "adapter" else None
        super().__init__(model, seed, trainable, {}, optimizer, schedule, keep)
        if adapter is not None:
            refuse_others(model, adapter)
        # In a list, so that it is no module of this one: nothing of it is trained, sharded or saved.
        self.still = [] if adapter is not None else [frozen_copy(model)]
        if loss.name == "mdpo" and not model.processor.tokens_a_view:  # type: ignore[union-attr]
            message = "mdpo compares with a corrupted picture, and this model sees none; choose sigmoid, ipo or ddpo"
            raise ConfigError([Problem("phase.loss.name", message)])
        self.adapter, self.settings, self.guards = adapter, loss, Guards(guards)
        self.seen: dict[int, dict[str, np.ndarray]] = {}  # by number of the batch, the same whatever rank read it

    def objective(self, batch: Batch) -> Loss:
        return self.loss(batch, self._both(batch))

    def loss(self, batch: Batch, output: Output) -> Loss:
        assert output.logp is not None
        assert output.reference is not None
        return preference_loss(output.logp, output.reference, batch, self.settings, self._corrupted(batch, self.step))

    def _corrupted(self, batch: Batch, step: int) -> Tensor | None:
        """Log-ratio [B] of the chosen answers behind small parts of their pictures, which mdpo alone asks for."""
        if self.settings.name != "mdpo":
            return None
        chosen = replace(chosen_alone(batch), views=enlarged(batch, self.seed, step))
        output = self._both(chosen)
        return answers(output.logp - output.reference, chosen)[0]  # type: ignore[operator]

    def _both(self, batch: Batch) -> Output:
        """What the model and its reference say."""
        if not self.still:
            return self.model(batch, reference=True)
        still = self.still[0].to(batch.views.device, batch.views.dtype)
        with torch.no_grad():
            before = still(batch).logp
        return replace(self.model(batch), reference=before)

    # -- the first step ---------------------------------------------------------------------------------------

    def _take_step(self, sums: Sums) -> None:
        if self.step == 0:
            self._check_start(sums)
        super()._take_step(sums)

    def _check_start(self, sums: Sums) -> None:
        """sums: of the first step over all ranks, so that all of them stop. Raises: RunError unless both models agree."""
        means = {name[4:]: sums[name] / sums["count"] for name in sums.named("aux/")}
        wanted, found = at_start(self.settings), means["preference"]
        if not math.isfinite(found):
            return  # which every step is asked
        near, apart = ROUNDED if "16" in str(self.trainer.precision) else EXACT
        if abs(found - wanted) <= near * max(1.0, wanted) and means["kl"] <= apart:
            return
        raise RunError(
            f"step 0: the preference loss is {found:.6f}, but {wanted:.6f} where the model equals its reference (chosen "
            f"drift {means['chosen_drift']:.6f}, rejected drift {means['rejected_drift']:.6f} nats, kl {means['kl']:.2e} "
            f"nats a token); no step was taken. {self._why_apart()}"
        )

    def _why_apart(self) -> str:
        if self.adapter is None:
            return (
                "In training the model says something else than in use: set every dropout and drop_path to 0, and freeze "
                "parts with BatchNorm"
            )
        return (
            f"Adapter {self.adapter!r} does not begin at zero, or something below it is drawn at random: take weights "
            "that do not hold this adapter, and no dropout in what is frozen"
        )

    # -- validation -------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        if self.guards.any and self.validation_batches is None:
            raise RunError(
                "phase.guards: nothing is held out (data.validate is empty), so nothing can be guarded; name a set "
                "there, or set phase.guards.chosen_drift and phase.guards.score to null"
            )

    def on_validation_epoch_start(self) -> None:
        self.seen = {}

    def validation_step(self, loaded: Loaded, batch_idx: int) -> None:
        batch = self.ready(loaded)
        output = self._both(batch)
        assert output.logp is not None
        assert output.reference is not None
        found = compare(output.logp, output.reference, batch, self.settings, self._corrupted(batch, 0))
        columns = {name: value.detach().double().cpu().numpy() for name, value in found.items()}
        number = batch_idx * self.trainer.world_size + self.global_rank
        self.seen[number] = columns | {"skipped": np.array([len(loaded.skipped)])}

    def validation_metrics(self) -> dict[str, float]:
        """Means over the held-out pairs: val/loss and what the loss logs."""
        seen = {number: row for part in from_all_ranks(self.trainer, self.seen) for number, row in part.items()}
        rows = [seen[number] for number in sorted(seen)][: self.validation_batches]  # beyond, the last one repeated
        whole = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        skipped = float(whole.pop("skipped").sum())
        row = {f"val/{name}": float(values.mean()) for name, values in whole.items()}
        row["val/samples"] = float(len(whole["loss"]))
        return row | ({"val/skipped": skipped} if skipped else {})

    def judge(self) -> None:
        """Holds the validation that just ended against the guards. Raises: RunError, on every rank."""
        score = self.guards.score(self.validated)
        if self.step == 0 and score is not None:
            self._remember(SCORE, score)
            self._remember(KNOWN, 1)
        if score is not None and not self.unlogged[KNOWN]:
            raise RunError(
                f"phase.guards.score: the run goes on from step {self.step} of one that did not have this guard, so its "
                "value before the first step is not known; start anew, or set phase.guards.score to null"
            )
        if faults := self.guards.faults(self.validated, self.unlogged[SCORE]):
            raise RunError(f"step {self.step}: {'; '.join(faults)}; {self._last_sound()}; {REMEDY}")
        self._remember(SOUND, self.step)

    def _last_sound(self) -> str:
        """Where the state of the last validation without fault lies, or an earlier one."""
        sound = round(self.unlogged[SOUND])
        saver = next((one for one in self.trainer.callbacks if isinstance(one, Saver)), None)  # type: ignore[attr-defined]
        if saver is not None:
            saver.checkpoints.wait()
            files = [path for path in all_of(saver.checkpoints.folder) if step_of(path) <= sound]
            if files:
                return f"the last validation without fault was at step {sound}, the last checkpoint until then is {files[-1]}"
        return f"the last validation without fault was at step {sound}, and no checkpoint until then is kept"

    def _remember(self, name: str, value: float) -> None:
        """Among the sums that are part of a run's state, so that a resumed run knows it."""
        self.unlogged.add(name, value - self.unlogged[name])

    def take_metrics(self) -> dict[str, float]:
        known = {name: self.unlogged[name] for name in (SCORE, KNOWN, SOUND)}
        row = super().take_metrics()
        for name, value in known.items():
            self._remember(name, value)
        return row


def uppermost(model: nn.Module) -> str:
    """Name of the adapter on top of the language model. Raises: ConfigError if it has none."""
    stack = list(getattr(model.llm, "adapters", ()))
    if not stack:
        message = (
            "DPO needs an adapter on top: the model without it is the reference; choose adapter=sft_dpo or dpo_r16, or "
            "phase.reference=copy for a model that trains as a whole"
        )
        raise ConfigError([Problem("llm.adapters", message)])
    return stack[-1]


def frozen_copy(model: nn.Module) -> nn.Module:
    """The model as it is now, in eval mode and without gradients; its processor, which holds no weights, is shared."""
    found = copy.deepcopy(model, {id(model.processor): model.processor})
    return found.eval().requires_grad_(False)


def refuse_others(model: nn.Module, adapter: str) -> None:
    """Raises: ConfigError if anything but this adapter trains: the reference, which must stand still, would move, too."""
    own = f"{ADAPTER}.{adapter}"
    names = [logical(name) for name, parameter in model.named_parameters() if parameter.requires_grad]
    others = sorted({_part(name) for name in names if not name.startswith(f"{own}.")})
    if others:
        message = (
            f"{', '.join(others)} would train, and with it the reference; DPO trains the uppermost adapter alone: set "
            f"phase.trainable={{{ADAPTER}: {{{adapter}: RATE}}}} and the others to null, or phase.reference=copy"
        )
        raise ConfigError([Problem("phase.trainable", message)])


def _part(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == ADAPTER else parts[0]
