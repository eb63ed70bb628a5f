"""Models as folders: a safetensors file a part, a PEFT folder an adapter; read back strictly."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vlm.contracts.errors import InputError, RunError
from vlm.contracts.parts import ATTACHED, READERS
from vlm.contracts.settings import BaseSettings
from vlm.models.llms.adapters import adapter_tensors
from vlm.models.llms.quantize import is_quantized
from vlm.training.adapters import ADAPTERS, WEIGHTS, adapters_of, load_adapters, write_adapter
from vlm.training.bases import load_configured_base, load_saved_base, saved_base, staying
from vlm.training.tensors import compare, fill, own_tensors, read_tensors, whole

# Of a folder from which a language model, its tokenizer or its template was made: all but the weights.
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
DIFFERING = 6  # keys that a message names
UNSHAPED = ("adapters", "mean", "path", "quantize", "std", "template", "token_budget")  # keys without a say in shapes


def model_folder(source: str | Path) -> Path:
    """A run folder's model/, or the folder itself if it is a saved model. Raises: InputError if it is neither."""
    path = Path(source)
    for candidate in (path / "model", path):
        if (candidate / "config.json").is_file():
            return candidate
    if not path.exists():
        raise InputError(f"{path}: there is no such folder; give a run folder or a saved model")
    state = ""
    if (path / "status.json").exists():
        status = json.loads((path / "status.json").read_text())
        state = " (its run has not finished: give its training command again)"
        if status.get("state") == "failed":
            state = f" (its run failed at step {status.get('step')}: {str(status.get('error'))[:300]})"
    raise InputError(f"{path}: no config.json in it or in its model/ folder, so this is no saved model{state}")


def save_model(model: Any, folder: Path, write: bool = True) -> None:
    """config.json, a file a part, a PEFT folder an adapter, tokenizer and chat template: enough to run elsewhere.

    A language model that is still as its folder has it stays there: config.json says where, and how it is known again.
    Written aside and moved into place. write: whether this rank writes; all of them gather.
    Raises: RunError if it cannot be written; an older model stays.
    """
    bases = {name: staying(getattr(model, name)) for name in model.parts}
    parts = {name: _gathered(own_tensors(getattr(model, name)), write) for name in model.parts if bases[name] is None}
    adapters = {name: _gathered(adapter_tensors(model.llm, name), write) for name in adapters_of(model)}
    if not write:
        return
    base = bases.get("llm")
    aside = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for name, tensors in parts.items():
            if tensors:
                save_file(tensors, aside / f"{name}.safetensors")
        for name, tensors in adapters.items():
            write_adapter(aside / ADAPTERS / name, model.config["llm"]["adapters"][name], tensors, base)
        _describe(model, aside, base)
        _replace(folder, aside)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{folder} cannot be written: {error}; free some space or fix its permissions") from error


def _gathered(tensors: Mapping[str, Tensor], write: bool) -> dict[str, Tensor]:
    together = ((name, whole(tensor)) for name, tensor in tensors.items())
    return {name: tensor.contiguous().cpu() for name, tensor in together if write}


def _describe(model: Any, aside: Path, base: BaseSettings | None) -> None:
    config = copy.deepcopy(model.config)
    if base is not None:
        config["base"] = asdict(base)
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
    (aside / "config.json").write_text(json.dumps({"format": 2, **config}, indent=1))
    if model.processor.tokenizer.ready and "path" not in config[reader_of(config)]["tokenizer"]:
        model.processor.tokenizer.save(aside / "tokenizer.json")


def _replace(folder: Path, aside: Path) -> None:
    """A folder cannot be renamed onto one that holds files: the old one steps aside first."""
    before = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.replace(before)
    aside.replace(folder)
    shutil.rmtree(before, ignore_errors=True)


def reader_of(config: Mapping[str, Any]) -> str:
    """The node of a model that reads text."""
    return next(name for name in READERS if config.get(name) is not None)


def _borrowing(config: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The nodes of what reads text that read files of a folder `path`, with their names."""
    reader = reader_of(config)
    nodes = {reader: config[reader], **{name: config[reader][name] for name in ATTACHED[reader]}}
    yield from ((name, node) for name, node in nodes.items() if "path" in node)


def resolve_paths(config: Mapping[str, Any], folder: Path) -> None:
    """Folders inside a saved model are named relative to it."""
    for _, node in _borrowing(config):
        node["path"] = str(folder / node["path"])


def load_part(model: Any, name: str, folder: Path, key: str | None = None) -> None:
    """Fill one part from a model folder.

    key: of the configuration, that named the folder; None if it is the model's own.
    Raises: InputError naming what is missing, left over or of another shape, and the keys by which the models differ.
    """
    part = getattr(model, name)
    base = saved_base(folder)
    if name == "llm" and base is not None:
        load_configured_base(part, base, folder)
        return
    if is_quantized(part):
        raise InputError(
            f"weights.{name}: {folder} holds a language model that was trained as a whole; with llm.quantize weights come "
            "from llm.path: export it with experiments.export to=hf and name that folder there, or leave quantize out"
        )
    wanted = own_tensors(part)
    if wanted:
        file = folder / f"{name}.safetensors"
        given = read_tensors(file, name)
        source = str(file) if key is None else f"{key}: {file}"
        compare(wanted, given, source, None if key is None else partial(_advice, model.config, folder, name))
        if any(tensor.is_meta for tensor in wanted.values()):
            part.initialise()
            wanted = own_tensors(part)
        fill(wanted, given, source)
        if getattr(part, "base", None) is not None:
            part.base = None  # these weights are no longer those of its folder


def _advice(ours: Mapping[str, Any], folder: Path, name: str) -> str:
    """By which keys the model of a folder is another one than ours: those of the part, else its neighbours'."""
    theirs = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    others = [node for node in ours if node != name]
    for nodes in ([name], others) if name in ours and name != "connector" else ([name, *others],):
        told = [line for node in nodes for line in _differing(node, theirs.get(node), ours.get(node))]
        if told:
            more = f" and {len(told) - DIFFERING} more" if len(told) > DIFFERING else ""
            return f"that model has {', '.join(told[:DIFFERING])}{more}; give both the same, or name a run of this form"
    return "its config.json describes the model of this run, so the file is another's; copy the folder again"


def _differing(key: str, theirs: Any, ours: Any) -> Iterator[str]:
    """Keys of the configuration with both values, of what may decide a shape."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        for inner in theirs:
            if inner not in UNSHAPED:
                yield from _differing(f"{key}.{inner}", theirs[inner], ours.get(inner))
    elif theirs != ours and isinstance(theirs, Mapping | None) and isinstance(ours, Mapping | None):
        yield f"{'no' if theirs is None else 'a'} {key}"
    elif theirs != ours:
        yield f"{key}={json.dumps(theirs)} ({json.dumps(ours)} here)"


def load_saved(model: Any, folder: Path) -> None:
    """Everything of a model folder into a model that was built from its config.json.

    Raises: InputError for what is missing or does not fit, also a base that is gone or has changed.
    """
    base = saved_base(folder)
    for name in model.parts:
        if name == "llm" and base is not None:
            load_saved_base(model.llm, base, folder)
        else:
            load_part(model, name, folder)
    load_adapters(model, folder, set())


def saved_dtype(folder: Path) -> torch.dtype:
    """Floating-point type of a saved model: of what reads its text or, if that stays elsewhere, of what was trained."""
    reader = reader_of(json.loads((folder / "config.json").read_text()))
    file = folder / f"{reader}.safetensors"
    files = [file]
    if saved_base(folder) is not None:
        files = [*sorted(folder.glob(f"{ADAPTERS}/*/{WEIGHTS}")), *sorted(folder.glob("*.safetensors"))]
    elif not file.exists():
        raise InputError(f"{file} is missing, so the {reader} has no weights")
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118  # no mapping
                    tensor = opened.get_tensor(name)
                    if tensor.is_floating_point():
                        return tensor.dtype
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file} cannot be read ({error}); copy or train the model again") from error
    return torch.float32
