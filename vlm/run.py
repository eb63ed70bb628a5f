"""One training run, from a checked configuration to a finished folder."""

from __future__ import annotations

import json
import logging
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vlm.build import Composed
from vlm.contracts.errors import ConfigError, InputError, RunError
from vlm.contracts.settings import RunConfig
from vlm.data import sources
from vlm.training.folder import RunFolder, run_id

log = logging.getLogger(__name__)
TAGGED = ("encoder", "connector", "llm", "data", "hardware")  # groups whose choices become W&B tags


def train(composed: Composed) -> dict[str, Any]:
    """Train, or go on, or recognise that it is done; prints the run folder on standard output.

    Returns: {"run", "state", "metric"}.
    Raises: InputError before anything is made; RunError with the state saved; Stopped (exit code 75) on request.
    """
    config = composed.config
    folder = RunFolder(Path(config["paths"]["runs"]) / config["name"] / run_id(config))
    # as JSON, because a strict record takes a plain mapping only from there
    settings = TypeAdapter(RunConfig).validate_json(json.dumps(config))
    try:
        data = sources.open_all(settings.paths.data, settings.data)
    except InputError as error:
        if not folder.is_finished:
            raise
        log.info("%s is finished; its data cannot be compared any more: %s", folder.path, error)
    else:
        _refuse_changed(folder, data)
        if folder.is_finished:
            log.info("%s is finished; nothing to do", folder.path)
        else:
            _train(composed, settings, folder, data)
    print(folder.path, flush=True)
    best = folder.status.get("best") or {}
    return {"run": str(folder.path), "state": folder.status["state"], "metric": best.get("value")}


def _refuse_changed(folder: RunFolder, data: sources.Opened) -> None:
    """A run belongs to the data that it was started with."""
    record = folder.path / "data.json"
    if not record.exists():
        return
    changed = sources.changed(json.loads(record.read_text()), data.record)
    if changed:
        raise InputError(
            f"{folder.path} was made with other data: {', '.join(changed)} was prepared anew since; remove that folder "
            "to train on the new data, or change seed or any key to keep both"
        )


def _train(composed: Composed, settings: RunConfig, folder: RunFolder, data: sources.Opened) -> None:
    from vlm.job import Job  # torch is loaded only here: finished runs and refusals answer at once

    tags = [f"{group}={composed.choices[group]}" for group in TAGGED]
    job = Job(composed.config, settings, folder, data, tags)
    job.prepare()
    folder.open()
    try:
        if folder.is_finished:  # by another process, while this one prepared
            return
        started = folder.status.get("started") or datetime.now(UTC).isoformat(timespec="seconds")
        folder.describe(composed.config, composed.overrides, data.record)
        folder.update(
            state="running",
            step=folder.status.get("step", 0),
            max_steps=job.total_steps,
            error=None,
            overrides=composed.overrides,
            started=started,
            host=platform.node(),
        )
        job.run()
        folder.update(state="finished")
    except SystemExit:
        folder.update(state="stopped")
        log.info("stopped at step %d with its state saved; the same command goes on", folder.status["step"])
        raise
    except KeyboardInterrupt:
        folder.update(state="stopped")
        log.info("stopped; the same command goes on from the last checkpoint, or from the start if there is none")
        raise SystemExit(75) from None
    except (ConfigError, InputError, RunError) as error:
        folder.update(state="failed", error=str(error))
        raise
    except BaseException as error:
        folder.update(state="failed", error=f"{type(error).__name__}: {error}")
        raise
    finally:
        folder.close()
