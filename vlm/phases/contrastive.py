"""Contrastive pretraining: an encoder and a text tower learn which caption belongs to which picture."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlm.contracts.batch import PADDING, Batch
from vlm.contracts.fusion import Loss, Output
from vlm.contracts.ranges import NonNegativeFloat, PositiveFloat, PositiveInt
from vlm.contracts.recipe import ContrastiveLossSettings, KeepSettings, OptimizerSettings, ScheduleSettings
from vlm.contracts.settings import Share
from vlm.data.loader import Loaded, Step
from vlm.data.order import mixed
from vlm.evaluation.gallery import groups, retrieval
from vlm.evaluation.intervals import wilson
from vlm.losses.contrastive import clip_loss, siglip_loss
from vlm.phases.base import Phase
from vlm.phases.one_batch import Part, equal, parts
from vlm.training.sharding import from_all_ranks
from vlm.training.sums import Sums
from vlm.training.weights import whole

BUDGET = -1  # in place of a micro-batch's number, where a step's budget is drawn


class Contrastive(Phase):
    """Every picture of a step is compared with every caption of it, over all micro-batches and ranks.

    A step of one micro-batch keeps its graph. Of several, each is seen twice: once for its rows alone, and, when the
    loss of the whole batch has told what its rows are to change, once more with gradients. So hardware.micro_batch
    bounds memory, and the gradients are those of the whole batch in one piece. Dropout draws the same both times.
    BatchNorm is the exception: it normalises by the micro-batch, as in every phase, and its moving statistics see a
    micro-batch twice.

    budgets, budget_shares: visual tokens of a step and how often they are drawn, the same for all of its pictures;
    without them the encoder's default.   An aux term is a mean over the pictures of a micro-batch.
    Source of the two passes: Gao et al. 2021 (GradCache).
    """

    nodes = ("text",)
    measures = ("val/retrieval_r1", "val/retrieval_r5", "val/retrieval_r1_low")
    model: Any

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
        budgets: list[PositiveInt],
        budget_shares: list[Share],
        trainable: Mapping[str, Any],
        aux: dict[str, NonNegativeFloat | None],
        loss: ContrastiveLossSettings,
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
    ) -> None:
        super().__init__(model, seed, trainable, aux, optimizer, schedule, keep)
        self.objective_name = loss.name
        self.budgets, self.budget_shares = list(budgets), list(budget_shares)
        self.pending: deque[Part] = deque()  # of the micro-batches that are still to be seen a second time
        self.seen: dict[int, dict[str, np.ndarray]] = {}  # by number of the batch, the same whatever rank read it

    def budget(self, step: int) -> int | None:
        """Visual tokens of a step: a pure function of seed and step, so that ranks and micro-batches agree."""
        if not self.budgets:
            return None
        ends = list(accumulate(self.budget_shares))
        drawn = mixed(self.seed, step, BUDGET) / 2**64 * ends[-1]
        return next(budget for budget, end in zip(self.budgets, ends, strict=True) if drawn <= end)

    # -- training ---------------------------------------------------------------------------------------------

    def ready(self, loaded: Loaded) -> Batch:
        return replace(super().ready(loaded), token_budget=self.budget(self.step))

    def accumulate(self, step: Step) -> Sums:
        self.pending.clear()
        if len(step.micro_batches) > 1:
            self.pending.extend(self._seen_before(step))
        return super().accumulate(step)

    @torch.no_grad()
    def _seen_before(self, step: Step) -> list[Part]:
        """The first time through a step, which keeps rows and forgets the rest."""
        rows, captions = [], []
        for number, loaded in enumerate(step.micro_batches):
            self.draw_for(number)
            batch = self.ready(loaded)
            rows.append(self.model(batch))
            captions.append(self._captions(batch))
        return self._parts(rows, captions)

    def loss(self, batch: Batch, output: Output) -> Loss:
        """This micro-batch's part of the loss of the whole step."""
        part = self.pending.popleft() if self.pending else self._parts([output], [self._captions(batch)])[0]
        assert output.image is not None
        assert output.text is not None
        temperature = (-whole(self.model.joint.log_scale.detach())).exp().sum()
        return Loss(
            total=part.pulls(output.image, output.text, self._scale()),
            count=torch.full((), len(batch.ids), device=output.image.device),
            logs={"temperature": temperature},
        )

    def _parts(self, outputs: Sequence[Output], captions: Sequence[Tensor]) -> list[Part]:
        return parts(self.trainer, self._sum, outputs, captions, [whole(parameter) for parameter in self._scale()])

    def _sum(self, image: Tensor, text: Tensor, same: Tensor, scale: Sequence[Tensor]) -> Tensor:
        if self.objective_name == "clip":
            return clip_loss(image, text, same, scale[0]).total
        return siglip_loss(image, text, same, scale[0], scale[1]).total

    def _scale(self) -> list[nn.Parameter]:
        joint = self.model.joint
        return [parameter for parameter in (joint.log_scale, joint.bias) if parameter is not None]

    def _captions(self, batch: Batch) -> Tensor:
        """Ids [b, L], as long on every rank, PADDING where there is none."""
        longest = min(self.model.processor.template.max_tokens, self.model.text.spec.positions)
        ids = batch.ids.masked_fill(batch.segment == PADDING, PADDING)
        return nn.functional.pad(ids, (0, longest - ids.shape[1]), value=PADDING)

    def _take_step(self, sums: Sums) -> None:
        super()._take_step(sums)
        self.model.joint.clamp()

    # -- validation -------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self.seen = {}

    def validation_step(self, loaded: Loaded, batch_idx: int) -> None:
        batch = super().ready(loaded)
        columns: dict[str, Tensor] = {"captions": self._captions(batch), "skipped": torch.tensor([len(loaded.skipped)])}
        for budget, tokens in self._looks().items():
            if f"image/{tokens}" not in columns:
                output = self.model(replace(batch, token_budget=budget))
                columns |= {f"image/{tokens}": output.image, "text": output.text}
        number = batch_idx * self.trainer.world_size + self.global_rank
        self.seen[number] = {name: column.cpu().numpy() for name, column in columns.items()}

    def _looks(self) -> dict[int | None, int]:
        """Budgets of a validation, the encoder's default first, and how many tokens each gives."""
        views = self.model.processor.views.spec
        count = self.model.encoder.spec.count
        return {budget: count(views.height, views.width, budget) for budget in (None, *self.budgets)}

    def validation_metrics(self) -> dict[str, float]:
        """Retrieval in groups of 64 held-out pairs, with the encoder's default budget and with each of `budgets`.

        val/retrieval_r1_low: lower end of its 95 % interval. A pair counts once, as the mean of its two directions,
        which makes the interval wider, not narrower.
        """
        seen = {number: row for part in from_all_ranks(self.trainer, self.seen) for number, row in part.items()}
        rows = [seen[number] for number in sorted(seen)][: self.validation_batches]  # beyond, the last one repeated
        columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        found: dict[str, float] = {}
        for budget, tokens in self._looks().items():
            measured = self._retrieved(columns[f"image/{tokens}"], columns["text"], columns["captions"])
            if budget is None:
                low, _ = wilson(measured["retrieval_r1"] * measured["samples"], int(measured["samples"]))
                found = {f"val/{name}": value for name, value in measured.items()} | {"val/retrieval_r1_low": low}
            else:
                found[f"val/retrieval_r1_{budget}"] = measured["retrieval_r1"]
        if columns["skipped"].any():
            found["val/skipped"] = float(columns["skipped"].sum())
        return found

    def _retrieved(self, image: np.ndarray, text: np.ndarray, captions: np.ndarray) -> dict[str, float]:
        scale = [whole(parameter.detach()).double().cpu() for parameter in self._scale()]
        loss, results = 0.0, []
        for group in groups(len(captions)):
            same = equal(torch.from_numpy(captions[group]))
            results.append(retrieval(image[group], text[group], same.numpy()))
            pictures, said = (torch.from_numpy(rows[group]).double() for rows in (image, text))
            loss += float(self._sum(pictures, said, same, scale))
        first, among_five, chance = (
            np.concatenate([getattr(result, name) for result in results]) for name in ("first", "among_five", "chance")
        )
        return {
            "loss": loss / len(first),
            "retrieval_r1": float(first.mean()),
            "retrieval_r5": float(among_five.mean()),
            "chance_r1": float(chance.mean()),
            "samples": float(len(first)),
        }
