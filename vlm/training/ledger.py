"""What a run has read, over all ranks: samples, tokens, what was skipped and cut, and the share of each set."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from vlm.contracts.errors import RunError
from vlm.data.loader import Skip, Step
from vlm.training.ranks import beat
from vlm.training.sharding import from_all_ranks

log = logging.getLogger(__name__)
SKIP_CHECK_FROM = 1000  # rows read before the skip budget is enforced


class Ledger(Callback):
    """Counts on every rank alike, so that all stop together when the skip budget is spent.

    names: of the sets, in the mix's order.   path: skipped.jsonl, written by the first rank.
    """

    def __init__(self, names: Sequence[str], skip_budget: float, path: Path) -> None:
        self.names, self.skip_budget, self.path = list(names), skip_budget, path
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def state(self) -> dict[str, Any]:
        return {"counts": dict(self.counts), "reasons": dict(self.reasons)}

    def restore(self, state: dict[str, Any]) -> None:
        self.counts, self.reasons = Counter(state["counts"]), Counter(state["reasons"])

    def shares(self) -> dict[str, dict[str, float]]:
        """What each set has delivered so far: samples, tokens, and its share of both."""
        samples, tokens = max(1, self.counts["samples"]), max(1, self.counts["tokens"])
        found = {}
        for number, name in enumerate(self.names):
            own, text = self.counts[f"set/{number}/samples"], self.counts[f"set/{number}/tokens"]
            found[name] = {"samples": own, "share": own / samples, "tokens": text, "token_share": text / tokens}
        return found

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Step, batch_idx: int
    ) -> None:
        sums = pl_module.last
        for name in ("samples", "tokens", "rows_read", "skipped", "cut", *sums.named("set/")):
            self.counts[name] += round(sums[name])
        if sums["skipped"]:
            self._note(trainer, pl_module.step, [skip for part in batch.micro_batches for skip in part.skipped])
        beat(pl_module.step)

    def _note(self, trainer: lightning.Trainer, step: int, own: list[Skip]) -> None:
        skipped = [skip for part in from_all_ranks(trainer, own) for skip in part]
        self.reasons.update(skip.reason for skip in skipped)
        if trainer.global_rank == 0:
            with self.path.open("a") as file:
                file.writelines(json.dumps({"step": step, **vars(skip)}) + "\n" for skip in skipped)
            first = skipped[0]
            log.warning("skipped %s row %d: %s: %s", first.set, first.row, first.reason, first.detail)
        read, lost = self.counts["rows_read"], self.counts["skipped"]
        if read >= SKIP_CHECK_FROM and lost > self.skip_budget * read:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())
            raise RunError(
                f"{lost} of {read} rows could not be used ({reasons}), more than data.skip_budget="
                f"{self.skip_budget:g}; see skipped.jsonl in the run folder, mend the data or raise the budget"
            )
