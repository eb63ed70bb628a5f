"""A run's state taken from a trainer and put back into one, whatever the number of processes on either side."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.utils._pytree import tree_map

from vlm.training.checkpoint import State

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True, strict=False)


def take(trainer: lightning.Trainer, phase: Any, counters: dict[str, Any], validated: bool) -> State | None:
    """The state after the step that was just taken, in memory of its own; every rank calls, only rank 0 gets it."""
    model, optimizer = get_state_dict(phase.model, trainer.optimizers[0], options=WHOLE)
    if trainer.global_rank != 0:
        return None
    if phase.device.type == "cpu":  # from other devices it came as a copy
        model, optimizer = tree_map(_copied, model), tree_map(_copied, optimizer)
    return State(
        step=phase.step,
        model=dict(model),
        optimizer=dict(optimizer),
        schedule=phase.lr_schedulers().state_dict(),
        counters=counters,
        unlogged=phase.unlogged.numbers(),
        frozen=phase.frozen,
        recipe=phase.recipe,
        validated=validated,
    )


def restore_model(model: torch.nn.Module, state: State) -> None:
    """Before the model is sharded: each rank has the whole checkpoint."""
    set_model_state_dict(model, state.model, options=StateDictOptions(strict=False))


def restore_optimizer(trainer: lightning.Trainer, phase: Any, state: State) -> None:
    """After the trainer made its optimizers. Also sets the trainer's own counters, by which it knows its steps."""
    set_optimizer_state_dict(phase.model, trainer.optimizers[0], state.optimizer, options=WHOLE)
    phase.lr_schedulers().load_state_dict(state.schedule)
    loop = trainer.fit_loop.epoch_loop
    taken = loop.manual_optimization.optim_step_progress.total
    taken.ready = taken.completed = state.step
    seen: Any = loop.batch_progress.total
    seen.ready = seen.started = seen.processed = seen.completed = state.step


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
