"""What happens around the steps of a run: rows of metrics, checkpoints, stopping on request."""

from __future__ import annotations

import logging
import math
import resource
import signal
import sys
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from tqdm import tqdm

from vlm.contracts.recipe import KeepSettings
from vlm.data.loader import Step, Steps
from vlm.data.remedies import remedies
from vlm.training.checkpoint import Checkpoints, State
from vlm.training.folder import RunFolder
from vlm.training.ledger import Ledger
from vlm.training.log import MetricLog, WandbMirror
from vlm.training.ranks import is_orphaned, launched_world
from vlm.training.sharding import agree
from vlm.training.snapshot import restore_optimizer, take
from vlm.training.stopping import Stopped

log = logging.getLogger(__name__)
LEFT_OUT = "validation rows that cannot be used were left out"
BLIND = "this model does not use its pictures"
ROUND = 256  # samples over which a mix keeps its shares
SHARE_TOLERANCE = 0.01  # of all samples, between what a set was asked for and what it gave
STATUS_SECONDS = 5  # between two updates of status.json while nothing else happens
QUIET_SECONDS = 15  # without a terminal, a line of progress at most this often


class Recorder(Callback):
    """Writes metrics.jsonl and its mirror and status.json, and shows progress; one process of a run has it."""

    def __init__(
        self,
        folder: RunFolder,
        metrics: MetricLog,
        mirror: WandbMirror,
        ledger: Ledger,
        steps: Steps,
        every: int,
        keep: KeepSettings,
        progress: bool,
    ) -> None:
        self.folder, self.metrics, self.mirror, self.ledger, self.steps = folder, metrics, mirror, ledger, steps
        self.every, self.keep = every, keep
        self.bar = tqdm(disable=None if progress else True, file=sys.stderr, unit="step", leave=False)
        self.began = self.last = self.shown = self.told = time.monotonic()
        self.since: dict[str, float] = {}
        self.first_step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.bar.total = pl_module.total_steps
        self.bar.update(pl_module.step)
        self.first_step = pl_module.step
        self.began = time.monotonic()
        self._restart_clock()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Step, batch_idx: int
    ) -> None:
        self.bar.update(1)
        if pl_module.step % self.every == 0 or pl_module.step == pl_module.total_steps:
            self._write_train(pl_module)

    def _write_train(self, pl_module: Any) -> None:
        seconds = max(1e-9, time.monotonic() - self.last)
        counts = self.ledger.counts
        row = {
            **pl_module.take_metrics(),
            "perf/samples_per_s": (counts["samples"] - self.since["samples"]) / seconds,
            "perf/tokens_per_s": (counts["tokens"] - self.since["tokens"]) / seconds,
            "perf/data_wait": (self.steps.waited - self.since["waited"]) / seconds,
            "perf/memory_gb": _memory_gb(),
            "data/skipped": counts["skipped"],
            "data/cut": counts["cut"],
        }
        if len(self.ledger.names) > 1:
            row |= {f"data/share/{name}": part["share"] for name, part in self.ledger.shares().items()}
        self.write(pl_module.step, row)
        if time.monotonic() - self.told > STATUS_SECONDS:
            self.told = time.monotonic()
            self.folder.update(step=pl_module.step, data=self.data())
        self._restart_clock()
        self.bar.set_postfix_str(f"loss {row.get('train/loss', 0):.4f}", refresh=False)
        now = time.monotonic()
        if self.bar.disable and now - self.shown > QUIET_SECONDS:
            self.shown = now
            done = max(1, pl_module.step - self.first_step)
            log.info(
                "%s step %d/%d loss %.4f, %.0f samples/s, about %.0f s left",
                self.folder.path.name,
                pl_module.step,
                pl_module.total_steps,
                row.get("train/loss", float("nan")),
                row["perf/samples_per_s"],
                (pl_module.total_steps - pl_module.step) * (now - self.began) / done,
            )

    def _restart_clock(self) -> None:
        counts = self.ledger.counts
        self.since = {"samples": counts["samples"], "tokens": counts["tokens"], "waited": self.steps.waited}
        self.last = time.monotonic()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.write(pl_module.step, pl_module.validated)
        self.note(pl_module.step, pl_module.validated)
        if self.since:
            self._restart_clock()  # a validation is no waiting for data

    def note(self, step: int, row: dict[str, float]) -> None:
        """Into status.json: the newest value of each metric, the best validation, and whether pictures are used."""
        best = self.folder.status.get("best")
        rank = self.keep.rank(row)
        before = math.inf
        if best is not None and best["metric"] == self.keep.by:
            before = self.keep.rank({self.keep.by: best["value"]})
        if rank < before and math.isfinite(rank):
            best = {"metric": self.keep.by, "value": row[self.keep.by], "step": step}
        metrics = {**self.folder.status.get("metrics", {}), **row}
        warnings = self.folder.status.get("warnings", [])
        if "val/skipped" in row and not any(warning.startswith(LEFT_OUT) for warning in warnings):
            warnings = [*warnings, f"{LEFT_OUT}: {row['val/skipped']:.0f}{self._why_left_out()}"]
            log.warning("%s step %d: %s", self.folder.path.name, step, warnings[-1])
        if "val/vision_gain" in row:
            warnings = [warning for warning in warnings if not warning.startswith(BLIND)]
            gain, error = row["val/vision_gain"], row["val/vision_gain_se"]
            if not gain - 1.96 * error > 0:
                warnings.append(f"{BLIND}: vision gain {gain:.4f} ± {error:.4f} nats a token is not above zero")
                log.warning("%s step %d: %s", self.folder.path.name, step, warnings[-1])
        self.folder.update(step=step, best=best, metrics=metrics, warnings=warnings, data=self.data())

    def _why_left_out(self) -> str:
        lost = self.ledger.left_out
        if not lost:
            return ""
        first, reasons = lost[0], {skip.reason for skip in lost}
        return (
            f", first {first.set} row {first.row}: {first.reason}: {first.detail}; "
            f"{remedies(reasons, self.ledger.overflow, self.ledger.reader)} (data.skip_budget counts training rows only)"
        )

    def warn_of_shares(self, asked: Mapping[str, float]) -> None:
        """A set that gave another part of the samples than it was asked for is no detail."""
        for name, part in self.ledger.shares().items():
            difference = abs(part["share"] - asked[name])
            if difference > SHARE_TOLERANCE and self.ledger.counts["samples"] >= ROUND:
                warning = f"{name} gave {part['share']:.1%} of the samples, but {asked[name]:.1%} were asked for"
                log.warning("%s: %s", self.folder.path.name, warning)
                self.folder.update(warnings=[*self.folder.status.get("warnings", []), warning])

    def data(self) -> dict[str, Any]:
        """Totals for status.json and the report: what was read, skipped by reason, cut, and each set's share."""
        counts = self.ledger.counts
        totals = {name: counts[name] for name in ("samples", "tokens", "rows_read", "skipped", "cut")}
        return {**totals, "reasons": dict(self.ledger.reasons), "delivered": self.ledger.shares()}

    def write(self, step: int, row: dict[str, float]) -> None:
        counts = {"step": step, "samples": self.ledger.counts["samples"], "tokens": self.ledger.counts["tokens"]}
        full = {**counts, "seconds": round(self.folder.seconds, 3), **row}
        self.metrics.write(full)
        self.mirror.write(full)

    def close(self) -> None:
        self.bar.close()


class Saver(Callback):
    """Saves every `save_every` steps, when a validation was among the best, at the end, and when asked to stop.

    Every rank has one, as all of them bring their part of a state. A checkpoint at a step with a validation is written
    after it, so that what was validated is never validated again. state: what the run goes on from, if it does.
    facts: what all ranks must have found alike.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        ledger: Ledger,
        save_every: int,
        validate_every: int | None,
        state: State | None,
        facts: Mapping[str, Any],
    ) -> None:
        self.checkpoints, self.ledger, self.state, self.facts = checkpoints, ledger, state, facts
        self.save_every, self.validate_every = save_every, validate_every
        self.is_over = False  # training is: there is nothing to save any more
        self._asked = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        agree(trainer, {"step": pl_module.step, **self.facts})
        if self.state is not None:
            restore_optimizer(trainer, pl_module, self.state)
            self.state = None
        self.take_signals()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.take_signals()

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Step, batch_idx: int) -> None:
        pl_module.asked_to_stop = self._asked or is_orphaned()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Step, batch_idx: int
    ) -> None:
        is_last = pl_module.step == pl_module.total_steps
        validates = self.validate_every is not None and pl_module.step % self.validate_every == 0
        if pl_module.asked_to_stop and not is_last:
            self._stop(trainer, pl_module, validated=not validates)
        if not validates and (self._is_due(pl_module) or is_last):
            self._save(trainer, pl_module, validated=True)

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.strategy.reduce_boolean_decision(self._asked or is_orphaned(), all=False):
            return
        if trainer.state.fn == TrainerFn.FITTING:
            self._stop(trainer, pl_module, validated=False)
        raise Stopped  # a validation that is made up for, or the last one: its step is saved already

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        pl_module.judge()
        if trainer.state.fn != TrainerFn.FITTING:
            return
        value = pl_module.keep.rank(pl_module.validated)
        is_last = pl_module.step == pl_module.total_steps
        is_best = trainer.strategy.broadcast(self.checkpoints.is_among_the_best(value))
        if is_best or is_last or self._is_due(pl_module):
            self._save(trainer, pl_module, validated=True, value=value)

    def _is_due(self, pl_module: Any) -> bool:
        return pl_module.step % self.save_every == 0

    def _save(self, trainer: lightning.Trainer, pl_module: Any, validated: bool, value: float | None = None) -> None:
        state = take(trainer, pl_module, self.ledger.state(), validated)
        if state is not None:
            self.checkpoints.write(state, value)

    def _stop(self, trainer: lightning.Trainer, pl_module: Any, validated: bool) -> None:
        self._save(trainer, pl_module, validated)
        self.checkpoints.wait()
        raise Stopped

    def take_signals(self) -> None:
        """Requests to stop come here, also where the trainer has put a handler of its own meanwhile."""
        for number in (signal.SIGINT, signal.SIGTERM):
            found = signal.signal(number, self._ask)
            self._before.setdefault(number, found)

    def restore_signals(self) -> None:
        for number, handler in self._before.items():
            # A rank that is on its way out has nothing to say to a second request.
            signal.signal(number, signal.SIG_IGN if launched_world() is not None else handler)
        self._before = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked or self.is_over:
            raise KeyboardInterrupt
        self._asked = True
        log.info("asked to stop: finishing this step and saving (once more to stop at once)")


def _memory_gb() -> float:
    """Peak of this process: of the accelerator if there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
