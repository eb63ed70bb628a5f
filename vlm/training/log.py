"""metrics.jsonl is the truth; W&B is a mirror that may fail without harm."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm.contracts.settings import LoggingSettings
from vlm.training.folder import finite

log = logging.getLogger(__name__)


class MetricLog:
    """One JSON object a line, flushed as written; on resume, rows beyond the checkpoint's step are dropped."""

    def __init__(self, path: Path, from_step: int) -> None:
        self.path = path
        drop_beyond(path, from_step)
        self.file = path.open("a", buffering=1)

    def write(self, row: Mapping[str, float]) -> None:
        self.file.write(json.dumps(finite(row)) + "\n")

    def close(self) -> None:
        self.file.close()


def drop_beyond(path: Path, step: int) -> None:
    """Take back the lines of steps that are trained again, so that a resumed run leaves what an undisturbed one does."""
    if path.exists():
        kept = [line for line in path.read_text().splitlines() if _step(line) <= step]
        path.write_text("".join(f"{line}\n" for line in kept))


class WandbMirror:
    """The same rows in a W&B run; any failure is reported once and ends the mirror, never the training."""

    def __init__(
        self,
        settings: LoggingSettings,
        folder: Path,
        run_id: str,
        job_type: str,
        tags: list[str],
        config: Mapping[str, Any],
    ) -> None:
        self.run: Any = None
        if settings.wandb == "disabled":
            return
        try:
            import wandb

            self.run = wandb.init(
                mode=settings.wandb,
                project=settings.project,
                id=run_id,
                resume="allow",
                name=f"{config['name']}/{run_id}",
                group=settings.group or os.environ.get("VLM_SWEEP"),
                job_type=job_type,
                tags=tags,
                dir=str(folder),
                config=dict(config),
                settings=wandb.Settings(
                    x_disable_stats=True,
                    console="off",
                    silent=True,
                    disable_git=True,
                    disable_code=True,
                    init_timeout=20,
                ),
            )
            self.run.define_metric("*", step_metric="step")
        except Exception as error:  # noqa: BLE001 - whatever the mirror's trouble is, the run goes on without it
            self._give_up(error)

    def write(self, row: Mapping[str, float]) -> None:
        self._guarded(lambda: self.run.log(dict(row)))

    def finish(self, failed: bool) -> None:
        self._guarded(lambda: self.run.finish(exit_code=int(failed)))

    def _guarded(self, call: Any) -> None:
        if self.run is None:
            return
        try:
            call()
        except Exception as error:  # noqa: BLE001 - as above
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        log.warning(
            "W&B is switched off for this run (%s: %s); metrics.jsonl goes on", type(error).__name__, str(error)[:300]
        )
        self.run = None


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf  # the last line of a killed process may be cut short
