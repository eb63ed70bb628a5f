"""What a multirun tells: its W&B group before the first job, and a table of all jobs at the end.

Jobs may run in processes of their own, so each leaves a record in a file, and the table is made of the records.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)
GROUP = "VLM_SWEEP"  # environment variable that the logging of a run reads its group from


class SweepTable(Callback):
    """Records lie in <hydra.sweep.dir>/<sweep id>/<start>/<job number>.json; earlier calls' records stay.

    The id is a hash of the overrides: the same command, repeated to run what is missing, is in the same group.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.names_group = False
        self.job_began = 0.0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        sweep = sweep_id(config.hydra.overrides.task)
        self.names_group = GROUP not in os.environ  # a user, or a command around this one, may have chosen a group
        os.environ.setdefault(GROUP, sweep)
        self.folder = Path(config.hydra.sweep.dir) / sweep / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
        atexit.register(self.show)  # Hydra does not call on_multirun_end when a job failed or the sweep was stopped

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.job_began = time.monotonic()
        # Stands until the job ends; of a process that was killed it is all that remains.
        self.record(config, {"state": "interrupted"})

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        result = job_return._return_value  # the public property raises what the job raised
        if job_return.status is JobStatus.COMPLETED:
            outcome = dict(result) if isinstance(result, Mapping) else {"state": "finished"}
        else:
            outcome = {"state": "failed", "error": str(result).partition("\n")[0], "run": run_folder(config)}
        self.record(config, {**outcome, "seconds": round(time.monotonic() - self.job_began, 2)})

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        atexit.unregister(self.show)
        self.show()
        if self.names_group:
            del os.environ[GROUP]

    def record(self, config: DictConfig, outcome: Mapping[str, Any]) -> None:
        """Write what is known of a job; a single run, outside a sweep, leaves no record."""
        if self.folder is None:
            return
        job = config.hydra.job.num
        content = json.dumps({"overrides": _typed(config.hydra.overrides.task), **outcome})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{job:05}.json").write_text(content, encoding="utf-8")
        except OSError as error:  # the job itself is safe
            log.warning("%s: job %s is missing in the table: %s", self.folder, job, error.strerror)

    def show(self) -> None:
        """The table, if any job was started."""
        if self.folder is not None and self.folder.is_dir():
            show([json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.folder.glob("*.json"))])


def sweep_id(overrides: Sequence[str]) -> str:
    """12 hex digits that stay the same when the same overrides come again, in any order."""
    return hashlib.sha256("\n".join(sorted(_typed(overrides))).encode()).hexdigest()[:12]


def show(records: Sequence[Mapping[str, Any]]) -> None:
    """The table of a sweep's jobs on standard error; overrides that all jobs share stand below it."""
    from rich.console import Console  # only where a table is shown: every command imports this module
    from rich.table import Table
    from rich.text import Text

    # Several jobs tell by their differences; what they share is said once.
    shared = (
        []
        if len(records) == 1
        else [line for line in records[0]["overrides"] if all(line in record["overrides"] for record in records)]
    )
    table = Table(title=f"Sweep of {len(records)} jobs", caption=" ".join(shared), title_justify="left")
    for heading in ("run", "overrides", "status"):
        table.add_column(heading, overflow="fold")
    table.add_column("best metric", justify="right")
    table.add_column("seconds", justify="right")
    told: set[str] = set()
    for record in records:
        metric = record.get("metric")
        table.add_row(
            Text(record.get("run", "")),  # Text: an override may hold [brackets], which are markup to rich
            Text(" ".join(line for line in record["overrides"] if line not in shared)),
            Text(": ".join(filter(None, [record["state"], _short(record.get("error"), told)]))),
            "" if metric is None else f"{metric:.4g}",
            f"{record['seconds']:.1f}" if "seconds" in record else "",
        )
    Console(file=sys.stderr).print(table)


def _typed(overrides: Sequence[str]) -> list[str]:
    """As a user types them, without the plus signs that say whether a key is new."""
    return [str(line).lstrip("+") for line in overrides]


def _short(error: str | None, told: set[str]) -> str | None:
    """An error in few words, and once: the whole message was printed when it happened, and stands in status.json."""
    if error is None or error in told:
        return error and "as above"
    told.add(error)
    return error if len(error) <= 60 else f"{error[:59]}…"


def run_folder(config: DictConfig) -> str:
    """The folder of a training run that failed; empty if it was refused before there was one."""
    from vlm.training.folder import run_id  # only after a failure: every command imports this module

    if "paths" not in config or "name" not in config:
        return ""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    plain: Any = OmegaConf.to_container(own, resolve=True)
    folder = Path(plain["paths"]["runs"], plain["name"], run_id(plain))
    return str(folder) if folder.is_dir() else ""
