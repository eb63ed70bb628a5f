"""One training run, from a checked configuration to a finished folder."""

from __future__ import annotations

import json
import logging
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlm.build import Composed
from vlm.contracts.errors import ConfigError, InputError, RunError
from vlm.contracts.settings import RunConfig
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
    if folder.is_finished:
        log.info("%s is finished; nothing to do", folder.path)
    else:
        _train(composed, folder)
    print(folder.path, flush=True)
    best = folder.status.get("best") or {}
    return {"run": str(folder.path), "state": folder.status["state"], "metric": best.get("value")}


def _train(composed: Composed, folder: RunFolder) -> None:
    # torch is loaded only here: finished runs and refusals answer at once
    from pydantic import TypeAdapter

    from vlm.job import Job

    # as JSON, because a strict record takes a plain mapping only from there
    settings = TypeAdapter(RunConfig).validate_json(json.dumps(composed.config))
    tags = [f"{group}={composed.choices[group]}" for group in TAGGED]
    job = Job(composed.config, settings, folder, tags)
    job.prepare()
    folder.open()
    try:
        if folder.is_finished:  # by another process, while this one prepared
            return
        started = folder.status.get("started") or datetime.now(UTC).isoformat(timespec="seconds")
        folder.describe(composed.config, composed.overrides, job.data)
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
