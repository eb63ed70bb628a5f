"""Weights of parts: saved as one safetensors file a part, read back strictly."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlm.contracts.errors import InputError, RunError
from vlm.contracts.parts import ATTACHED, PARTS
from vlm.models.vlm import VLM

# Of a folder from which a language model, its tokenizer or its template was made: all but the weights.
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


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


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or all of it where ranks hold shards; then every rank has to ask, in the same order."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def save_model(model: VLM, folder: Path, write: bool = True) -> None:
    """config.json, a file a part, tokenizer and chat template: enough to run elsewhere.

    Written aside and moved into place. write: whether this rank writes; all of them gather.
    Raises: RunError if it cannot be written; an older model stays.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name in PARTS:
        gathered = ((key, whole(value)) for key, value in own_tensors(getattr(model, name)).items())
        parts[name] = {key: value.contiguous().cpu() for key, value in gathered if write}
    if not write:
        return
    aside = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for name, tensors in parts.items():
            if tensors:
                save_file(tensors, aside / f"{name}.safetensors")
        _describe(model, aside)
        _replace(folder, aside)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{folder} cannot be written: {error}; free some space or fix its permissions") from error


def _describe(model: VLM, aside: Path) -> None:
    config = copy.deepcopy(model.config)
    folders: dict[str, str] = {}
    for name, node in _borrowing(config):
        source, target = Path(node["path"]), folders.setdefault(node["path"], name)
        files = [file for file in SMALL_FILES if (source / file).is_file()]
        if not files:
            raise RunError(f"{source}, from which the {name} was made, is gone; put it back and save the model again")
        (aside / target).mkdir(exist_ok=True)
        for file in files:
            shutil.copyfile(source / file, aside / target / file)
        node["path"] = target
    (aside / "config.json").write_text(json.dumps({"format": 1, **config}, indent=1))
    if model.processor.tokenizer.ready and "path" not in config["llm"]["tokenizer"]:
        model.processor.tokenizer.save(aside / "tokenizer.json")


def _replace(folder: Path, aside: Path) -> None:
    """A folder cannot be renamed onto one that holds files: the old one steps aside first."""
    before = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.replace(before)
    aside.replace(folder)
    shutil.rmtree(before, ignore_errors=True)


def _borrowing(config: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The nodes of a language model that read files of a folder `path`, with their names."""
    nodes = {"llm": config["llm"], **{name: config["llm"][name] for name in ATTACHED["llm"]}}
    yield from ((name, node) for name, node in nodes.items() if "path" in node)


def resolve_paths(config: Mapping[str, Any], folder: Path) -> None:
    """Folders inside a saved model are named relative to it."""
    for _, node in _borrowing(config):
        node["path"] = str(folder / node["path"])


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
    file = folder / "llm.safetensors"
    if not file.exists():
        raise InputError(f"{file} is missing, so the llm has no weights")
    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # no mapping
                tensor = opened.get_tensor(name)
                if tensor.is_floating_point():
                    return tensor.dtype
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read ({error}); copy or train the model again") from error
    return torch.float32


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
