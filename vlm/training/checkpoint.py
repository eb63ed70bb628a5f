"""Checkpoints of a run: what trains and its optimizer, written in the background, whole or not at all.

A checkpoint is one file, `step-<step>-<checksum>.ckpt`: it appears under that name in one moment, when all of it is on
the disk, and a file whose content does not have the checksum of its name is never used. Tensors are whole, not sharded,
so any number of processes can go on from it. Random numbers need no place in it: every draw is a function of (seed,
step, micro-batch) or (seed, position). Neither do readers of data: the step says which rows come next.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlm.contracts.errors import InputError, RunError
from vlm.contracts.recipe import KeepSettings
from vlm.training.folder import write_json

log = logging.getLogger(__name__)
FORMAT = 2
DIGITS = 16  # of the SHA-256 that stand in a file's name


@dataclass(frozen=True)
class State:
    """Everything that a run goes on from.

    model: trained parameters and the buffers that move.   optimizer, schedule: their own states, by parameter name.
    counters: what was read.   unlogged: sums of the steps since the last row of metrics.
    frozen: fingerprint of what does not train.   recipe: identity of what decides the result (folder.recipe_id).
    validated: whether the validation due at this step, if any, is done.
    """

    step: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    counters: dict[str, Any]
    unlogged: dict[str, float]
    frozen: str
    recipe: str
    validated: bool


class Checkpoints:
    """The checkpoints in one folder, written by one process; `write` returns before the file is there."""

    def __init__(self, folder: Path, keep: KeepSettings) -> None:
        self.folder, self.keep = folder, keep
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._values: dict[str, float] = _read_values(folder, keep.by)

    def write(self, state: State, value: float | None = None) -> None:
        """Write in the background, after the one before. value: rank of the validation at this step, lower is better.

        The state's tensors must not change any more. Raises: RunError if the one before could not be written.
        """
        self.wait()
        self._pending = self._writer.submit(self._write, state, value)

    def wait(self) -> None:
        """Until everything is on the disk. Raises: RunError if it could not be written; older ones stay."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Until everything is on the disk; a write that failed while the run ended for another reason is only told."""
        self._writer.shutdown()
        failed = self._pending.exception() if self._pending else None
        if failed is not None:
            log.warning("%s", failed)

    def is_among_the_best(self, value: float) -> bool:
        """Whether a checkpoint with this rank would be kept for it."""
        best = sorted(self._values.values())[: self.keep.best]
        return math.isfinite(value) and self.keep.best > 0 and (len(best) < self.keep.best or value < best[-1])

    def _write(self, state: State, value: float | None) -> None:
        temporary = self.folder / f".step-{state.step:08d}.part"
        try:
            self.folder.mkdir(exist_ok=True)
            with temporary.open("wb") as file:
                torch.save({"format": FORMAT, **vars(state)}, file)
                file.flush()
                os.fsync(file.fileno())
            path = self.folder / f"step-{state.step:08d}-{_checksum(temporary)}.ckpt"
            temporary.replace(path)
            _sync_folder(self.folder)
            if value is not None and math.isfinite(value):
                self._values[path.name] = value
            self._clean(path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            temporary.unlink(missing_ok=True)
            free = shutil.disk_usage(self.folder).free
            reason = getattr(error, "strerror", None) or f"{error}".partition("\n")[0]
            reason = "no space left on device" if free < 2**20 else reason
            raise RunError(
                f"{self.folder}: the checkpoint of step {state.step} cannot be written: {reason}; free some space or "
                "fix its permissions, then give the same command again"
            ) from error

    def _clean(self, newest: Path) -> None:
        """Remove what no rule keeps: the last ones, the best ones, every so many steps."""
        files = all_of(self.folder)
        best = sorted((name for name in self._values), key=lambda name: self._values[name])[: self.keep.best]
        spared = set(best)
        if self.keep.every is not None:  # the first at or behind each multiple
            turns = {step_of(path) // self.keep.every: path.name for path in reversed(files)}
            spared |= {name for turn, name in turns.items() if turn}
        for path in files[: -self.keep.last]:
            if path.name not in spared and path != newest:
                path.unlink()
        remaining = {path.name for path in all_of(self.folder)}
        self._values = {name: value for name, value in self._values.items() if name in remaining}
        write_json(self.folder / "values.json", {"by": self.keep.by, "ranks": self._values})


def all_of(folder: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.ckpt"))


def step_of(path: Path) -> int:
    return int(path.name.split("-")[1])


def newest(folder: Path) -> State | None:
    """The newest checkpoint that is whole; one that is not is left out, and it says so.

    Raises: InputError if there are some and none is whole.
    """
    found = all_of(folder)
    for path in reversed(found):
        try:
            checksum, content = _checksum(path), None
            if checksum == path.stem.rpartition("-")[2]:
                content = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:  # a run at work has just replaced it
            return newest(folder)
        if content is None:
            log.warning("%s is cut short or damaged (its checksum differs); going back to the one before", path)
            continue
        if content.pop("format") != FORMAT:
            raise InputError(f"{path} was written by another version of this project; go on with that version")
        return State(**content)
    if found:
        raise InputError(f"none of the checkpoints in {folder} can be read; remove that folder to start again")
    return None


def fingerprint(model: nn.Module) -> str:
    """Of the tensors that do not train: names, shapes, and values at up to 1024 evenly spread places of each."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            flat = parameter.detach().flatten()
            places = torch.linspace(0, max(0, flat.numel() - 1), min(1024, flat.numel()), dtype=torch.float64)
            places = places.long().to(flat.device)  # float32 would round beyond the end of 2**24 values and more
            digest.update(f"{name} {list(parameter.shape)}".encode())
            digest.update(flat[places].float().cpu().numpy().tobytes())
            if (
                quantized := getattr(parameter, "quant_state", None)
            ) is not None:  # packed numbers do not tell their scale
                digest.update(quantized.absmax.float().cpu().numpy().tobytes())
                if quantized.nested:
                    digest.update(quantized.state2.absmax.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:DIGITS]


def differences(state: State, model: nn.Module, groups: list[str], recipe: str) -> str:
    """What does not fit between a checkpoint and what it is to be loaded into; empty if all fits.

    groups: paths of the optimizer's parameter groups.   recipe: as in State.
    """
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in frozen}
    names = sorted(wanted.keys() ^ state.model.keys())
    names += sorted(name for name in wanted.keys() & state.model.keys() if wanted[name] != state.model[name].shape)
    if names:
        return f"{len(names)} tensors differ, first {names[0]}"
    if [group["path"] for group in state.optimizer["param_groups"]] != groups:
        return "phase.trainable trains other parts"
    if state.frozen != fingerprint(model):
        return "the weights that do not train are others than they were"
    return "" if state.recipe == recipe else "seed, data or another key that decides the result differs"


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)  # a rename is on the disk when its folder is
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_values(folder: Path, by: str) -> dict[str, float]:
    """What validations said of the files that are there, if they were judged by the same metric.

    Only a hint, so what cannot be read is as if unknown.
    """
    file = folder / "values.json"
    try:
        known = json.loads(file.read_bytes()) if file.exists() else {}
    except ValueError as error:
        log.warning("%s is damaged (%s): which checkpoints are the best is found anew", file, error)
        known = {}
    names = {path.name for path in all_of(folder)}
    ranks = known.get("ranks") if isinstance(known, dict) and known.get("by") == by else None
    entries = ranks.items() if isinstance(ranks, dict) else ()
    return {name: value for name, value in entries if name in names and isinstance(value, float | int)}
