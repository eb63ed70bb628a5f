"""Checkpoints of a run: written whole or not at all, the last two kept."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import lightning
import torch

from vlm.contracts.errors import InputError, RunError

log = logging.getLogger(__name__)

KEPT = 2


def save(trainer: lightning.Trainer, folder: Path) -> Path:
    """Write the trainer's state as step-<n>.ckpt. Raises: RunError if it cannot be written; older ones stay."""
    path = folder / f"step-{trainer.global_step:08d}.ckpt"
    temporary = folder / f".{path.name}.part"
    try:
        folder.mkdir(exist_ok=True)
        trainer.save_checkpoint(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(
            f"{path} cannot be written: {error.strerror or error}; free some space or fix its permissions, then give "
            "the same command again"
        ) from error
    for old in all_of(folder)[:-KEPT]:
        old.unlink()
    return path


def all_of(folder: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.ckpt"))


def newest(folder: Path, module: lightning.LightningModule) -> Path | None:
    """The newest checkpoint that can be read; one that was cut short is left out, and it says so.

    Raises: InputError if there are some and none can be read, or if it belongs to another model or recipe.
    """
    found = all_of(folder)
    for path in reversed(found):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            log.warning("%s cannot be read (%s); going back to the one before", path, str(error).partition("\n")[0])
            continue
        faults = _differences(state, module)
        if faults:
            raise InputError(f"{path} belongs to another model or recipe: {faults}; give the run that fits")
        return path
    if found:
        raise InputError(f"none of the checkpoints in {folder} can be read; remove that folder to start again")
    return None


def _differences(state: dict[str, Any], module: lightning.LightningModule) -> str:
    """What does not fit between a checkpoint and what it is to be loaded into."""
    given, wanted = state["state_dict"], module.state_dict()
    names = sorted(given.keys() ^ wanted.keys())
    names += sorted(n for n in given.keys() & wanted.keys() if given[n].shape != wanted[n].shape)
    if names:
        return f"{len(names)} tensors differ, first {names[0]}"
    groups = [len(group["params"]) for group in state["optimizer_states"][0]["param_groups"]]
    optimizer: Any = module.configure_optimizers()
    ours = [len(group["params"]) for group in optimizer["optimizer"].param_groups]
    return "" if groups == ours else "phase.trainable trains other parts"


def step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))
