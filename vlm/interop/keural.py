"""Keural's published folder: encoder/ (config.json, model.safetensors), projector.pt, sft_adapter/ and dpo_adapter/.

The language model is not in it: it is named, and its own folder has to be given. What is inside the published encoder is
not public, so its tensors are compared with those of ours and refused with their names where they differ.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlm.contracts.errors import InputError
from vlm.interop.foreign import Foreign, natural
from vlm.interop.peft_folder import PeftFolder, read_adapter

ENCODER, PROJECTOR = Path("encoder"), Path("projector.pt")
ADAPTERS = {"sft": "sft_adapter", "dpo": "dpo_adapter"}  # lowest first
LEVELS = 3
LONGEST = 1024  # visual tokens of a folder that does not say how many it takes
TEXT = 2048  # text tokens of a row (conf/llm/mistral_7b.yaml); fewer where the language model has no room for them
SMALLER = "keural_25m"
PUBLISHED = {(384, 12): SMALLER, (768, 24): "keural_183m"}  # width and blocks -> file of conf/encoder
STRANGE = (
    "the inside of the published encoder is not public, and this one is another than ours. Its projector and adapters can "
    "be imported all the same, around an encoder of your own: add encoder=RUN_OR_FOLDER"
)


def read(path: Path, base: str | None, quantize: str | None, encoder: Mapping[str, Any] | None) -> Foreign:
    """base: folder of the language model.   encoder: node of one's own encoder that takes the place of encoder/.

    Raises: InputError for a file that is missing, damaged, or does not fit the others.
    """
    if base is None:
        raise InputError(
            f"base: {path} holds no language model; name the folder of the one that it was trained on with base=DIR"
        )
    tensors: dict[str, Tensor] = {}
    if encoder is None:
        tensors = read_encoder(path)
        lines = encoder_lines(path, tensors)
        width = tensors["level_emb"].shape[1] if _is_table(tensors) else None
    else:
        lines, width = [f"encoder={SMALLER}", *_lines(encoder, "encoder")], encoder["width"]
    projector = read_projector(path / PROJECTOR)
    _refuse_mixture(path, width, projector, Path(base))
    adapters = _adapters(path)
    notes = [note for folder in adapters.values() if (note := folder.other_name(base))]
    upper = list(adapters)[-1]
    overrides = [
        "experiment=keural_sft",
        f"adapter={'sft_dpo' if upper == 'dpo' else 'lora_r64'}",
        *lines,
        f"connector.hidden={projector['inner.weight'].shape[0]}",
        f"connector.levels={'true' if 'levels' in projector else 'false'}",
        "llm=mistral_7b",
        f"llm.path={_quoted(base)}",
        f"llm.quantize={quantize or 'null'}",
        *_room(base, lines),
        *(line for name, folder in adapters.items() for line in _lines(folder.settings, f"llm.adapters.{name}")),
    ]
    named = {f"encoder.{name}": tensor for name, tensor in tensors.items()}
    named |= {f"connector.{name}": tensor for name, tensor in projector.items()}
    return Foreign(
        overrides,
        named,
        next(iter(adapters[upper].tensors.values())).dtype,
        adapters={name: folder.tensors for name, folder in adapters.items()},
        made_on={name: folder.base for name, folder in adapters.items()},
        check=lambda wanted: refuse_strange(wanted, named, path / ENCODER),
        notes=tuple(notes),
    )


def write(folder: Path, node: Mapping[str, Any], encoder: dict[str, Tensor], projector: dict[str, Tensor]) -> None:
    """encoder/ and projector.pt. node: the encoder's own, written as its config.json, so that it is built again alike."""
    home = folder / ENCODER
    home.mkdir(parents=True)
    config = {key: value for key, value in node.items() if key != "_target_"}
    config["views"] = {key: value for key, value in node["views"].items() if key != "_target_"}
    (home / "config.json").write_text(json.dumps(config, indent=1))
    save_file(encoder, home / "model.safetensors", metadata={"format": "pt"})
    torch.save(projector, folder / PROJECTOR)


def read_encoder(path: Path) -> dict[str, Tensor]:
    file = path / ENCODER / "model.safetensors"
    if not file.is_file():
        raise InputError(
            f"{file} is missing; give the published folder, or an encoder of your own with encoder=RUN_OR_FOLDER"
        )
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} cannot be read ({error}); copy it again") from error


def read_projector(file: Path) -> dict[str, Tensor]:
    """Under our names. A projector of other names is recognised by its shapes: two layers, one behind the other, with
    their biases, and a table of levels or none. Raises: InputError for anything else.
    """
    state = _state(file)
    if state.keys() <= {"levels", "scale", "inner.weight", "inner.bias", "outer.weight", "outer.bias"}:
        found = state
    else:
        tables = [name for name, tensor in state.items() if tensor.ndim == 2 and tensor.shape[0] == LEVELS]
        layers = [name for name in natural(state) if state[name].ndim == 2 and name not in tables]
        if len(layers) == 2 and state[layers[1]].shape[1] != state[layers[0]].shape[0]:
            layers.reverse()
        pairs = list(zip(("inner", "outer"), layers, strict=False))
        names = {f"{ours}.weight": name for ours, name in pairs}
        names |= {f"{ours}.bias": name.removesuffix("weight") + "bias" for ours, name in pairs}
        names |= dict(zip(("levels",), tables, strict=False))
        found = {ours: state[name] for ours, name in names.items() if name in state}
        if len(layers) != 2 or len(found) != len(state):
            raise InputError(f"{file} is no projector of two layers and a table of levels; it holds {_listed(state)}")
    lacking = {"inner.weight", "inner.bias", "outer.weight", "outer.bias"} - found.keys()
    if lacking:
        raise InputError(f"{file}: {', '.join(sorted(lacking))} is missing; it holds {_listed(state)}")
    inner, outer = found["inner.weight"], found["outer.weight"]
    if outer.shape[1] != inner.shape[0] or ("levels" in found and found["levels"].shape != (LEVELS, inner.shape[1])):
        raise InputError(f"{file}: its layers and its table of levels do not follow upon each other: {_listed(state)}")
    return {"scale": torch.ones((), dtype=inner.dtype), **found}


def refuse_strange(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], source: Path) -> None:
    """wanted: of our model, by part. Raises: InputError naming the first tensors of the encoder that differ, with counts."""
    ours = {name.removeprefix("encoder."): tensor for name, tensor in wanted.items() if name.startswith("encoder.")}
    theirs = {name.removeprefix("encoder."): tensor for name, tensor in given.items() if name.startswith("encoder.")}
    if not theirs:
        return
    missing, extra = natural([*(ours.keys() - theirs.keys())]), natural([*(theirs.keys() - ours.keys())])
    other = natural([name for name in ours.keys() & theirs.keys() if ours[name].shape != theirs[name].shape])
    if not missing and not extra and not other:
        return
    shapes = [f"{name} {list(theirs[name].shape)} instead of {list(ours[name].shape)}" for name in other[:3]]
    first = [f"{what}: {', '.join(names)}" for what, names in
             (("missing", missing[:3]), ("not ours", extra[:3]), ("of another shape", shapes)) if names]  # fmt: skip
    raise InputError(
        f"{source}/model.safetensors: of our encoder's {len(ours)} tensors {len(missing)} are missing, {len(extra)} are not "
        f"ours and {len(other)} have another shape ({'; '.join(first)}); {STRANGE}"
    )


def _adapters(path: Path) -> dict[str, PeftFolder]:
    there = {name: path / folder for name, folder in ADAPTERS.items() if (path / folder).is_dir()}
    if "sft" not in there:
        raise InputError(f"{path / ADAPTERS['sft']} is missing; the other adapter was trained on top of it")
    return {name: read_adapter(folder) for name, folder in there.items()}


def encoder_lines(path: Path, tensors: Mapping[str, Tensor]) -> list[str]:
    """By config.json, and where that says nothing by the tensors' shapes. Raises: InputError where the two disagree."""
    file = path / ENCODER / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        said = {key: config[key] for key in ("width", "layers", "heads", "strides", "token_budget") if key in config}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}); give the published folder") from error
    other = [f"encoder={SMALLER}", "encoder.token_budget=1"]  # the comparison that follows says where they differ
    if not _is_table(tensors):
        return other
    seen: dict[str, Any] = {"width": tensors["level_emb"].shape[1]}
    seen["layers"] = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    stages = len({name.split(".")[1] for name in tensors if name.startswith("stem.")})
    said_stages = len(said["strides"]) if "strides" in said else stages
    for key, told, found in (
        *((key, said.get(key, seen[key]), seen[key]) for key in seen),
        ("stem", said_stages, stages),
    ):
        if told != found:
            count = sum(tensor.numel() for tensor in tensors.values())
            raise InputError(
                f"{file} describes an encoder of {key} {told}, but model.safetensors beside it holds one of {key} {found} "
                f"({count:,} parameters); these are files of two models: copy both from one"
            )
    group = PUBLISHED.get((seen["width"], seen["layers"]))
    if {"width", "layers", "heads", "strides", "token_budget", "views"} <= config.keys():
        return [f"encoder={group or SMALLER}", *_lines(config, "encoder")]
    return other if group is None else [f"encoder={group}", *_lines(said, "encoder")]


def _is_table(tensors: Mapping[str, Tensor]) -> bool:
    return "level_emb" in tensors and tensors["level_emb"].ndim == 2


def _refuse_mixture(path: Path, width: int | None, projector: Mapping[str, Tensor], base: Path) -> None:
    takes, gives = projector["inner.weight"].shape[1], projector["outer.weight"].shape[0]
    if width not in (None, takes):
        raise InputError(
            f"{path / PROJECTOR} takes tokens of {takes} channels, but the encoder gives {width}; they belong to two models"
        )
    if gives != (needed := _figure(base, "hidden_size")):
        raise InputError(
            f"{path / PROJECTOR} gives {gives} channels, but the language model in {base} is {needed} wide; name the folder "
            "of the one that it was trained on with base=DIR"
        )


def _room(base: str, lines: list[str]) -> list[str]:
    budget = next((int(line.partition("=")[2]) for line in lines if line.startswith("encoder.token_budget=")), None)
    room = _figure(Path(base), "max_position_embeddings") - (budget or LONGEST)
    return [f"llm.template.max_tokens={max(1, room)}"] if room < TEXT else []


def _figure(base: Path, key: str) -> int:
    try:
        return int(json.loads((base / "config.json").read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"base: {base} is no folder of a language model in Hugging Face's form ({error!r})") from error


def _state(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise InputError(f"{file} is missing; give the published folder")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)  # a pickle could run anything otherwise
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        if zipfile.is_zipfile(file) and isinstance(error, pickle.UnpicklingError):
            raise InputError(
                f"{file} cannot be read as plain tensors: it holds something else, which is not opened, as it could run code; "
                "write it again from its state_dict with torch.save"
            ) from error
        raise InputError(
            f"{file} cannot be read as plain tensors: it is cut or damaged ({file.stat().st_size:,} bytes); copy it again"
        ) from error
    for key in ("state_dict", "model_state_dict", "projector"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise InputError(f"{file} holds no tensors by name")
    names = [str(name) for name in found]
    front = next((front for front in ("module.", "projector.") if all(n.startswith(front) for n in names)), "")
    return {str(name).removeprefix(front): tensor for name, tensor in found.items()}


def _listed(state: Mapping[str, Tensor]) -> str:
    listed = [f"{name} {list(state[name].shape)}" for name in natural([*state])]
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


def _lines(node: Mapping[str, Any], key: str) -> list[str]:
    """A node's values as overrides."""
    lines: list[str] = []
    for name, value in node.items():
        if isinstance(value, Mapping):
            lines += _lines(value, f"{key}.{name}")
        elif name != "_target_":
            lines.append(f"{key}.{name}={_quoted(value) if isinstance(value, str) else json.dumps(value)}")
    return lines


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'") if "'" in text else text
    return f"'{escaped}'"
