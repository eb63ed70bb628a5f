"""Checkpoints of a run: written whole or not at all, the last two kept."""

from __future__ import annotations

import os
from pathlib import Path

import lightning

from vlm.contracts.errors import RunError

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


def step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))
