"""Weights of parts: saved as one safetensors file a part, read back strictly."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlm.contracts.errors import InputError, RunError
from vlm.contracts.parts import PARTS
from vlm.models.vlm import VLM


def model_folder(source: str | Path) -> Path:
    """A run folder's model/, or the folder itself if it is a saved model. Raises: InputError if it is neither."""
    path = Path(source)
    for candidate in (path / "model", path):
        if (candidate / "config.json").is_file():
            return candidate
    if not path.exists():
        raise InputError(f"{path}: there is no such folder; give a run folder or a saved model")
    state = " (its run has not finished: give its training command again)" if (path / "status.json").exists() else ""
    raise InputError(f"{path}: no config.json in it or in its model/ folder, so this is no saved model{state}")


def own_tensors(part: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers of a part, a shared tensor once, under its first name."""
    state = part.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name, tensor in state.items():
        first.setdefault(id(tensor), name)
    return {name: state[name].detach() for name in first.values()}


def save_model(model: VLM, folder: Path) -> None:
    """config.json, a file a part, tokenizer.json: enough to run elsewhere. Written aside and moved into place.

    Raises: RunError if it cannot be written; an older model stays.
    """
    try:
        _save_model(model, folder)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{folder} cannot be written: {error}; free some space or fix its permissions") from error


def _save_model(model: VLM, folder: Path) -> None:
    aside = folder.with_name(f".{folder.name}.part")
    aside.mkdir(parents=True, exist_ok=True)
    for name in PARTS:
        tensors = {key: value.contiguous().cpu() for key, value in own_tensors(getattr(model, name)).items()}
        if tensors:
            save_file(tensors, aside / f"{name}.safetensors")
    (aside / "config.json").write_text(json.dumps({"format": 1, **model.config}, indent=1))
    if model.processor.tokenizer.ready:
        model.processor.tokenizer.save(aside / "tokenizer.json")
    if folder.exists():
        for old in folder.iterdir():
            old.unlink()
        folder.rmdir()
    aside.replace(folder)


def load_part(model: VLM, name: str, folder: Path) -> None:
    """Fill one part from a model folder. Raises: InputError naming what is missing, left over or of another shape."""
    part = getattr(model, name)
    wanted = own_tensors(part)
    if wanted:
        file = folder / f"{name}.safetensors"
        fill(wanted, _read(file, name), str(file))


def _read(file: Path, part: str) -> dict[str, Tensor]:
    if not file.exists():
        raise InputError(f"{file} is missing, so the {part} has no weights")
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read ({error}); copy or train the model again") from error


def saved_dtype(folder: Path) -> torch.dtype:
    """Floating-point type of a saved model, that of its language model."""
    tensors = _read(folder / "llm.safetensors", "llm")
    return next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), torch.float32)


def fill(wanted: dict[str, Tensor], given: dict[str, Tensor], source: str) -> None:
    """Copy tensors in place; the model's dtype stays."""
    faults = [
        *_named("missing", wanted.keys() - given.keys()),
        *_named("not part of the model", given.keys() - wanted.keys()),
        *(
            f"{name} has shape {list(given[name].shape)}, the model needs {list(wanted[name].shape)}"
            for name in sorted(wanted.keys() & given.keys())
            if wanted[name].shape != given[name].shape
        ),
    ]
    if faults:
        raise InputError(f"{source} does not fit the model: {'; '.join(faults)}")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(given[name])


def _named(what: str, names: Iterable[str]) -> list[str]:
    listed = sorted(names)
    if not listed:
        return []
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return [f"{', '.join(listed[:5])}{more} {'is' if len(listed) == 1 else 'are'} {what}"]
