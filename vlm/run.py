"""One training run, from a checked configuration to a finished folder."""

from __future__ import annotations

import contextlib
import json
import logging
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from vlm.benchmarks import benchmark_settings
from vlm.build import Composed
from vlm.contracts.errors import ConfigError, InputError, RunError
from vlm.contracts.settings import HardwareProfile, RunConfig
from vlm.data import licences, sources
from vlm.launch import launch
from vlm.signature import read
from vlm.training.folder import RunFolder, read_object, read_status, recipe, run_id
from vlm.training.ranks import launched_world, rank
from vlm.training.stopping import STOPPED, Stopped

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
    refuse_world(settings.hardware)
    try:
        data = sources.open_all(settings.paths.data, settings.data)
    except InputError as error:
        if not folder.is_finished or isinstance(error, licences.LicenceRefused):
            raise
        log.info("%s is finished; its data cannot be compared any more: %s", folder.path, error)
    else:
        _refuse_changed(folder, data)
        refuse_unpaired(settings, data)
        if settings.resume is not None:
            _refuse_other_recipe(Path(settings.resume), config)
        refuse_watch(settings)
        if folder.is_finished:
            log.info("%s is finished; nothing to do", folder.path)
            _tell_unwatched(settings, folder)
        elif settings.hardware.world > 1 and launched_world() is None:
            _launch(composed, settings, folder)
            return _result(folder)  # the first rank has printed the folder
        else:
            _train(composed, settings, folder, data)
    if rank() == 0:
        print(folder.path, flush=True)
    return _result(folder)


def refuse_unpaired(settings: RunConfig, data: sources.Opened) -> None:
    """Sets without preference pairs for a phase that reads nothing else. Raises: InputError."""
    if not read(settings.phase["_target_"]).pairs:
        return
    if lacking := sources.without_pairs(data.slices["train"]):
        raise InputError(
            f"data.train: {', '.join(lacking)} holds no preference pairs, which this phase learns from; choose a set of "
            "pairs, for example data=pairs_mixed, or your own with data=own_preferences"
        )


def refuse_watch(settings: RunConfig) -> None:
    """Benchmarks that there are none of, and a metric that no validation gives. Raises: ConfigError or InputError."""
    watched = [name for name, use in settings.benchmarks.items() if use is not None]
    for name in watched:
        benchmark_settings(name, settings.benchmarks[name].change)  # type: ignore[union-attr]
    by = settings.phase["keep"]["by"]
    own = ("val/loss", *read(settings.phase["_target_"]).measures)
    scores = [f"val/{name}" for name in watched]
    if by not in (*own, *scores):
        raise InputError(
            f"phase.keep.by: {by} is no metric of this run's validations; give {' or '.join(own)}, or name the benchmark: "
            f"+benchmarks.{by.removeprefix('val/')}.limit=200"
        )
    score = (settings.phase.get("guards") or {}).get("score")
    if score is not None and score not in scores:
        raise InputError(
            f"phase.guards.score: {score} is no benchmark of this run's validations; name it: "
            f"+benchmarks.{score.removeprefix('val/')}.limit=200"
        )
    if watched and not any(settings.data.validate.values()):
        raise InputError("benchmarks: they are scored at validations, and data.validate names no set")


def _tell_unwatched(settings: RunConfig, folder: RunFolder) -> None:
    missing = [name for name in settings.benchmarks if f"val/{name}" not in folder.status.get("metrics", {})]
    if missing:
        log.warning("it finished without val/%s; experiments.evaluate scores a finished model", ", val/".join(missing))


def _result(folder: RunFolder) -> dict[str, Any]:
    best = folder.status.get("best") or {}
    return {"run": str(folder.path), "state": folder.status.get("state"), "metric": best.get("value")}


def refuse_world(hardware: HardwareProfile) -> None:
    """What the profile asks for and what a launcher has started must be the same."""
    launched = launched_world()
    if launched is None and hardware.nodes > 1:
        raise InputError(
            f"hardware.nodes: {hardware.nodes} machines need a launcher on each, for example torchrun "
            f"--nnodes={hardware.nodes} --nproc_per_node={hardware.devices} -m experiments.train with the same words"
        )
    if launched is not None and launched != hardware.world:
        raise InputError(
            f"hardware.devices: {hardware.devices} on {hardware.nodes} machines make {hardware.world} processes, but "
            f"{launched} were launched; start as many as the profile says"
        )


def _launch(composed: Composed, settings: RunConfig, folder: RunFolder) -> None:
    """The run in several processes. If one is lost without a word, the folder still tells of it."""
    try:
        launch(composed.overrides, settings.hardware.world, settings.hardware.timeout_s)
    except RunError as error:
        folder.status = read_status(folder.path)
        if folder.status.get("state") in ("running", "failed"):
            own = folder.status.get("error")
            folder.update(state="failed", error=f"{error}; rank 0: {own}" if own else str(error))
        raise
    folder.status = read_status(folder.path)


def _refuse_other_recipe(other: Path, config: Mapping[str, Any]) -> None:
    """`resume` takes a run to other hardware, to more steps, or to other habits of logging, and nothing else."""
    file = other / "config.yaml"
    if not file.exists():
        raise InputError(f"resume: {other} is no run folder (no config.yaml); give the folder that training printed")
    before, now = recipe(yaml.safe_load(file.read_text())), recipe(config)
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if changed:
        listing = "; ".join(f"{key}: {before.get(key)} then, {now.get(key)} now" for key in changed[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise InputError(
            f"resume: {other} was trained by another recipe ({listing}{more}); give the same values, or start a new run "
            "from its weights with init_from"
        )


def _refuse_changed(folder: RunFolder, data: sources.Opened) -> None:
    """A run belongs to the data that it was started with."""
    record = folder.path / "data.json"
    if not record.exists():
        return
    before = read_object(record)
    if not isinstance(before.get("sets"), dict):
        raise InputError(f"{record} does not say what the run reads; move the run folder away and start again")
    changed = sources.changed(before, data.record)
    if changed:
        raise InputError(
            f"{folder.path} was made with other data: {', '.join(changed)} was prepared anew since; remove that folder "
            "to train on the new data, or change seed or any key to keep both"
        )


def _train(composed: Composed, settings: RunConfig, folder: RunFolder, data: sources.Opened) -> None:
    from vlm.job import Job  # torch is loaded only here: finished runs and refusals answer at once

    if rank() > 0:  # the first rank speaks for all
        logging.basicConfig(level=logging.WARNING, format=f"rank {rank()}: %(message)s", force=True)
    for line in licences.in_words(data.record["license_flags"]):
        log.info(line)
    tags = [f"{group}={composed.choices[group]}" for group in TAGGED]
    if rank() == 0 and folder.path.exists():
        folder.open()  # nobody else changes what is read from it; a new one is made when nothing can be refused any more
    try:
        job = Job(composed.config, settings, folder, data, tags)
        job.prepare()
        if rank() > 0:  # the first rank keeps the folder
            with stopped_at_once():
                job.run()
            return
        folder.open()
        if not folder.is_finished:  # by another process, while this one prepared
            _carry_out(job, folder, composed, {**data.record, "asked": job.asked})
    finally:
        folder.close()


@contextlib.contextmanager
def stopped_at_once() -> Iterator[None]:
    """A second request to stop ends a process with the exit code of the first."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise Stopped from None


def _carry_out(job: Any, folder: RunFolder, composed: Composed, data: Mapping[str, Any]) -> None:
    """The run, and in its status how it ended."""
    try:
        folder.describe(composed.config, composed.overrides, data)
        folder.update(
            state="running",
            step=folder.status.get("step", 0),
            max_steps=job.phase.total_steps,
            error=None,
            overrides=composed.overrides,
            started=folder.status.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
            host=platform.node(),
        )
        job.run()
        folder.update(state="finished")
    except Stopped:
        folder.update(state="stopped")
        log.info("stopped at step %d with its state saved; the same command goes on", folder.status["step"])
        raise
    except (KeyboardInterrupt, SystemExit):  # the trainer turns the first into the second
        kept = _kept(folder, composed.config["resume"])
        folder.update(state="stopped", step=kept)
        log.info("stopped at once; the same command goes on from step %d, the last that was saved", kept)
        raise SystemExit(STOPPED) from None
    except (ConfigError, InputError, RunError) as error:
        folder.update(state="failed", error=str(error))
        raise
    except BaseException as error:
        folder.update(state="failed", error=f"{type(error).__name__}: {error}")
        raise


def _kept(folder: RunFolder, resume: str | None) -> int:
    """The step that the same command would go on from, 0 without a checkpoint."""
    from vlm.training.checkpoint import all_of, step_of  # loads torch, as the run that has just ended did

    homes = [folder.path, *([Path(resume)] if resume else [])]
    files = next((found for home in homes if (found := all_of(home / "checkpoints"))), [])
    return step_of(files[-1]) if files else 0
