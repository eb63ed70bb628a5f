"""Tensors of a part by name: listed, read from a file, compared, copied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vlm.contracts.errors import InputError
from vlm.contracts.parts import ADAPTER, logical

NAMED = 5  # tensors of a kind that a message names


def own_tensors(part: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers of a part, a shared tensor once, under its first name.

    Adapters do not belong to a part, and the layers that they are put around keep their names.
    """
    named = ((logical(name), tensor) for name, tensor in part.state_dict(keep_vars=True).items())
    state = {name: tensor for name, tensor in named if not name.startswith(f"{ADAPTER}.")}
    first: dict[int, str] = {}
    for name, tensor in state.items():
        first.setdefault(id(tensor), name)
    return {name: state[name].detach() for name in first.values()}


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or all of it where ranks hold shards; then every rank has to ask, in the same order."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def read_tensors(file: Path, part: str) -> dict[str, Tensor]:
    """Raises: InputError if the file is missing or damaged."""
    if not file.exists():
        raise InputError(
            f"{file} is missing, so the {part} has no weights; name a model that has it, or copy the folder again"
        )
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read ({error}); copy or train the model again") from error


def fill(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors in place; the model's dtype stays."""
    compare(wanted, given, source)
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(given[name])


def compare(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str, advice: Callable[[], str] | None = None
) -> None:
    """advice: what to do. Raises: InputError for names that only one of the two has, and for shapes that differ."""
    faults = differences(wanted, given)
    if faults:
        remedy = "" if advice is None else f"; {advice()}"
        raise InputError(f"{source} does not fit the model: {in_short(faults)}{remedy}")


def in_short(faults: list[str]) -> str:
    """What `differences` found, for a message: the first few of it, and how many more there are."""
    more = [f"and {len(faults) - NAMED} more"] if len(faults) > NAMED else []
    return "; ".join([*faults[:NAMED], *more])


def differences(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Names that only one of the two has, and shapes that differ, in words."""
    return [
        *_named("missing", wanted.keys() - given.keys()),
        *_named("not part of the model", given.keys() - wanted.keys()),
        *(
            f"{name} has shape {list(given[name].shape)}, the model needs {list(wanted[name].shape)}"
            for name in sorted(wanted.keys() & given.keys())
            if wanted[name].shape != given[name].shape
        ),
    ]


def _named(what: str, names: Iterable[str]) -> list[str]:
    listed = sorted(names)
    if not listed:
        return []
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return [f"{', '.join(listed[:NAMED])}{more} {'is' if len(listed) == 1 else 'are'} {what}"]
