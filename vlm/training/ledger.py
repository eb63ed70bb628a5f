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
from vlm.data.loader import Loaded, Skip, Step
from vlm.data.remedies import remedies
from vlm.training.ranks import beat
from vlm.training.sharding import from_all_ranks

log = logging.getLogger(__name__)
SKIP_CHECK_FROM = 1000  # rows read before the skip budget is enforced


class Ledger(Callback):
    """Counts on every rank alike, so that all stop together when the skip budget is spent.

    names: of the sets, in the mix's order.   path: skipped.jsonl, written by the first rank, a line each time that a
    training row is skipped; the log tells of a row once.   overflow, reader: for what to do about them (`remedies`).
    left_out, shortened: rows of the last validation that could not be used, and how many were cut to fit.
    """

    def __init__(
        self, names: Sequence[str], skip_budget: float, path: Path, overflow: str = "cut", reader: str = "llm"
    ) -> None:
        self.names, self.skip_budget, self.path = list(names), skip_budget, path
        self.overflow, self.reader = overflow, reader
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.left_out: list[Skip] = []
        self.shortened = 0
        self._told: set[tuple[str, int]] | None = None  # training rows; None = the file has not been looked at yet
        self._validated: dict[int, tuple[int, tuple[Skip, ...]]] = {}  # by number of the batch

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

    def closing(self) -> str:
        """What was cut and skipped in the whole run and in its last validation, with what to do about it."""
        reasons = set(self.reasons)
        told = f"{self.counts['cut']:,} of {self.counts['samples']:,} samples cut to fit"
        told += f", {self.counts['skipped']:,} of {self.counts['rows_read']:,} rows skipped{_listed(self.reasons)}"
        if self.shortened or self.left_out:
            lost = Counter(skip.reason for skip in self.left_out)
            reasons |= set(lost)
            told += f"; of the last validation {self.shortened:,} cut, {len(self.left_out):,} left out{_listed(lost)}"
        if self.counts["cut"] or self.shortened:
            told += f"; cut: raise {self.reader}.template.max_tokens, or leave them out with data.overflow=skip"
        advice = remedies(reasons, self.overflow, self.reader)
        return f"{told}; {advice}" if advice else told

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
            self._tell(skipped)
            with self.path.open("a") as file:
                file.writelines(json.dumps({"step": step, **vars(skip)}) + "\n" for skip in skipped)
        read, lost = self.counts["rows_read"], self.counts["skipped"]
        if read >= SKIP_CHECK_FROM and lost > self.skip_budget * read:
            raise RunError(
                f"{lost} of {read} rows could not be used{_listed(self.reasons)}, more than data.skip_budget="
                f"{self.skip_budget:g}; see skipped.jsonl in the run folder, raise the budget, or mend what is wrong: "
                f"{remedies(set(self.reasons), self.overflow, self.reader)}"
            )

    def _tell(self, skipped: Sequence[Skip]) -> None:
        """The first of the rows that were never told of, also before the run was stopped, and how many more."""
        if self._told is None:
            lines = self.path.read_text().splitlines() if self.path.exists() else []
            self._told = {(line["set"], line["row"]) for line in map(json.loads, lines)}
        new = {(skip.set, skip.row): skip for skip in skipped if (skip.set, skip.row) not in self._told}
        self._told |= new.keys()
        if new:
            first = next(iter(new.values()))
            more = f" (and {len(new) - 1} more, all in {self.path.name})" if len(new) > 1 else ""
            log.warning("skipped %s row %d: %s: %s%s", first.set, first.row, first.reason, first.detail, more)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._validated = {}

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Loaded,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._validated[batch_idx * trainer.world_size + trainer.global_rank] = batch.cut, batch.skipped

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """val/cut beside the phase's metrics, where there is any. A batch that a rank repeated is not counted."""
        found = {number: row for part in from_all_ranks(trainer, self._validated) for number, row in part.items()}
        rows = [found[number] for number in sorted(found)][: pl_module.validation_batches]
        self.shortened = sum(cut for cut, _ in rows)
        self.left_out = [skip for _, skipped in rows for skip in skipped]
        if self.shortened:
            pl_module.validated["val/cut"] = float(self.shortened)


def _listed(reasons: Counter[str]) -> str:
    return f" ({', '.join(f'{reason} {count}' for reason, count in reasons.most_common())})" if reasons else ""
