"""What happens around the steps of a run: rows of metrics, checkpoints, stopping on request, the skip budget."""

from __future__ import annotations

import json
import logging
import math
import resource
import signal
import sys
import time
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from vlm.contracts.errors import RunError
from vlm.data.loader import Loaded, Skip
from vlm.training import checkpoint
from vlm.training.folder import RunFolder, write_json
from vlm.training.log import MetricLog, WandbMirror

log = logging.getLogger(__name__)
BLIND = "this model does not use its pictures"
QUIET_SECONDS = 15  # without a terminal, a line of progress at most this often
SKIP_CHECK_FROM = 1000  # rows read before the skip budget is enforced


class Stopped(SystemExit):
    """The run was asked to stop and its state is saved."""

    def __init__(self) -> None:
        super().__init__(75)


class Recorder(Callback):
    """Writes metrics.jsonl and its mirror, status.json, skipped.jsonl, and shows progress."""

    def __init__(
        self, folder: RunFolder, metrics: MetricLog, mirror: WandbMirror, every: int, skip_budget: float, progress: bool
    ) -> None:
        self.folder, self.metrics, self.mirror = folder, metrics, mirror
        self.every, self.skip_budget = every, skip_budget
        self.bar = tqdm(disable=None if progress else True, file=sys.stderr, unit="step", leave=False)
        self.shown = time.monotonic()
        self.samples = self.tokens = self.rows_read = self.skipped = self.cut = 0
        self.since = {"samples": 0, "tokens": 0, "wait": 0.0}
        self.last = time.monotonic()
        self.began = self.batch_ended = self.last

    def state_dict(self) -> dict[str, Any]:
        names = ("samples", "tokens", "rows_read", "skipped", "cut")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.bar.total = trainer.max_steps
        self.bar.update(trainer.global_step)
        self.last = self.batch_ended = time.monotonic()

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Loaded, batch_idx: int) -> None:
        self.since["wait"] += time.monotonic() - self.batch_ended

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Loaded, batch_idx: int
    ) -> None:
        rows = batch.batch.ids.shape[0] * trainer.world_size
        tokens = int((batch.batch.segment >= 0).sum()) * trainer.world_size
        self.samples += rows
        self.tokens += tokens
        self.since["samples"] += rows
        self.since["tokens"] += tokens
        self.cut += batch.cut
        self._count_skips(batch.skipped, rows)
        self.batch_ended = time.monotonic()
        if pl_module.window:  # in the middle of an accumulation
            return
        self.bar.update(1)
        if trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            self._write_train(trainer, pl_module)

    def _write_train(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        now = time.monotonic()
        seconds = max(1e-9, now - self.last)
        row = {
            **pl_module.take_metrics(),
            "perf/samples_per_s": self.since["samples"] / seconds,
            "perf/tokens_per_s": self.since["tokens"] / seconds,
            "perf/data_wait": self.since["wait"] / seconds,
            "perf/memory_gb": _memory_gb(),
            "data/skipped": self.skipped,
            "data/cut": self.cut,
        }
        self.write(trainer.global_step, row)
        self.since = {"samples": 0, "tokens": 0, "wait": 0.0}
        self.last = now
        self.bar.set_postfix_str(f"loss {row.get('train/loss', 0):.4f}", refresh=False)
        if self.bar.disable and now - self.shown > QUIET_SECONDS:
            self.shown = now
            left = (trainer.max_steps - trainer.global_step) * (now - self.began) / max(1, trainer.global_step)
            log.info(
                "%s step %d/%d loss %.4f, %.0f samples/s, about %.0f s left",
                self.folder.path.name,
                trainer.global_step,
                trainer.max_steps,
                row.get("train/loss", float("nan")),
                row["perf/samples_per_s"],
                left,
            )

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        row = pl_module.validation_metrics()
        self.write(trainer.global_step, row)
        self.note(trainer.global_step, row)
        self.folder.update(validated=trainer.global_step)
        self.last = self.batch_ended = time.monotonic()  # a validation is no waiting for data

    def validated_at(self, step: int) -> bool:
        return self.folder.status.get("validated") == step

    def note(self, step: int, row: dict[str, float]) -> None:
        """Into status.json: the newest value of each metric, the best loss, and whether pictures are used."""
        best = self.folder.status.get("best")
        loss = row.get("val/loss", math.inf)
        if math.isfinite(loss) and (best is None or loss < best["value"]):
            best = {"metric": "val/loss", "value": loss, "step": step}
        metrics = {**self.folder.status.get("metrics", {}), **row}
        warnings = self.folder.status.get("warnings", [])
        if "val/vision_gain" in row:
            warnings = [warning for warning in warnings if not warning.startswith(BLIND)]
            gain, error = row["val/vision_gain"], row["val/vision_gain_se"]
            if not gain - 1.96 * error > 0:
                warnings.append(f"{BLIND}: vision gain {gain:.4f} ± {error:.4f} nats a token is not above zero")
                log.warning("%s step %d: %s", self.folder.path.name, step, warnings[-1])
        self.folder.update(step=step, best=best, metrics=metrics, warnings=warnings)

    def write(self, step: int, row: dict[str, float]) -> None:
        counts = {"step": step, "samples": self.samples, "tokens": self.tokens}
        full = {**counts, "seconds": round(self.folder.seconds, 3), **row}
        self.metrics.write(full)
        self.mirror.write(full)

    def _count_skips(self, skipped: tuple[Skip, ...], rows: int) -> None:
        self.rows_read += rows + len(skipped)
        if not skipped:
            return
        self.skipped += len(skipped)
        with (self.folder.path / "skipped.jsonl").open("a") as file:
            for skip in skipped:
                file.write(json.dumps(vars(skip)) + "\n")
        first = skipped[0]
        log.warning("skipped %s row %d: %s: %s", first.set, first.row, first.reason, first.detail)
        if self.rows_read >= SKIP_CHECK_FROM and self.skipped > self.skip_budget * self.rows_read:
            raise RunError(
                f"{self.skipped} of {self.rows_read} rows could not be used, more than data.skip_budget="
                f"{self.skip_budget:g}; see skipped.jsonl in the run folder, mend the data or raise the budget"
            )

    def close(self) -> None:
        self.bar.close()


class Saver(Callback):
    """Saves every `every` steps, at the end, and when the process is asked to stop."""

    def __init__(self, folder: RunFolder, every: int) -> None:
        self.folder, self.every = folder, every
        self.asked = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Loaded, batch_idx: int
    ) -> None:
        if pl_module.window:
            return
        if trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps or self.asked:
            checkpoint.save(trainer, self.folder.path / "checkpoints")
            self.folder.update(step=trainer.global_step)
        if self.asked and trainer.global_step < trainer.max_steps:
            raise Stopped

    def restore_signals(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        if isinstance(exception, RunError) and pl_module.keys:
            keys = [key for batch in pl_module.keys for key in batch]
            write_json(self.folder.path / "failed_batch.json", {"step": trainer.global_step, "keys": keys})

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        log.info("asked to stop: finishing this step and saving (once more to stop at once)")


def _memory_gb() -> float:
    """Peak of this process: of the accelerator if there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
