"""How a model is spread over processes: the strategy of a hardware profile, and where FSDP2 cuts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from vlm.contracts.errors import RunError
from vlm.contracts.settings import HardwareProfile
from vlm.models.recompute import blocks


def strategy(hardware: HardwareProfile, model: nn.Module) -> Any:
    """What Lightning calls a strategy. A process that hears nothing from the others for timeout_s gives up.

    model: with what trains of it marked so.
    """
    backend = "gloo" if hardware.accelerator == "cpu" else "nccl"
    wait = timedelta(seconds=hardware.timeout_s)
    if hardware.strategy == "ddp":
        # Buffers are averaged once a step (vlm.phases.base), which says more than the first rank's.
        return DDPStrategy(
            process_group_backend=backend,
            timeout=wait,
            broadcast_buffers=False,
            find_unused_parameters=_leaves_some_out(model),
        )
    if hardware.strategy == "fsdp2":
        return ModelParallelStrategy(
            data_parallel_size=hardware.world, tensor_parallel_size=1, process_group_backend=backend, timeout=wait
        )
    return "auto"


def _leaves_some_out(model: Any) -> bool:
    """Whether some of what trains may have no gradient, which DDP then looks for at every step.

    A model that answers asks its encoder for tokens alone: what makes the one vector of a view stands idle.
    """
    if not hasattr(model, "llm"):
        return False
    return any(
        parameter.requires_grad
        for part in (model.encoder, model.connector)
        for name, parameter in part.named_parameters()
        if name.partition(".")[0] in getattr(part, "spare", ())
    )


def from_all_ranks(trainer: lightning.Trainer, own: Any) -> list[Any]:
    """What every rank gives, in their order; all of them call."""
    if trainer.world_size == 1:
        return [own]
    everybody: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everybody, own)
    return everybody


def agree(trainer: lightning.Trainer, facts: Mapping[str, Any]) -> None:
    """Before the first step: what every rank must have found alike, such as the step to go on from.

    Raises: RunError, on every rank, that names a rank and the fact in which it differs from the first.
    """
    everybody = from_all_ranks(trainer, dict(facts))
    for number, found in enumerate(everybody):
        for name, value in found.items():
            if value != everybody[0][name]:
                raise RunError(
                    f"rank {number} has another {name} than rank 0 ({value}, not {everybody[0][name]}); every process "
                    "needs the same files: look at paths.data, paths.runs and the folders that give weights"
                )


def shard(model: nn.Module, module: lightning.LightningModule) -> None:
    """Under FSDP2 cut every repeated block and the rest as one unit; else leave the model as it is.

    Parts are not units of their own: `embed`, `logits` and the like are called from outside their `forward`.
    """
    if not isinstance(module.trainer.strategy, ModelParallelStrategy) or isinstance(model, FSDPModule):
        return
    mesh = module.device_mesh["data_parallel"]  # type: ignore[index]
    for part in model.children():
        for block in blocks(part):
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
