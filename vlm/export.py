"""The way out: a model of ours as a folder for transformers, in Keural's layout, or with its adapters merged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError

from vlm.contracts.errors import InputError, RunError
from vlm.contracts.settings import BaseSettings
from vlm.interop import keural
from vlm.interop.hub import write_hub
from vlm.interop.language_folder import copy_language_model, write_language_model, write_tokenizer
from vlm.library import load_model, read_config
from vlm.models.llms.adapters import adapter_tensors, merge_adapters
from vlm.models.llms.base import fingerprint
from vlm.models.vlm import VLM
from vlm.training.adapters import ADAPTERS, write_adapter
from vlm.training.bases import staying
from vlm.training.tensors import own_tensors
from vlm.training.weights import model_folder, save_model

Target = Literal["hf", "internvl", "llava", "keural", "merged"]
# Parts of the layouts that are read by other programs as they are: encoder, connector, language model.
NATIVE = {
    "internvl": "an InternViT encoder, a pixel-shuffling projector and a Qwen or InternLM language model",
    "llava": "a CLIP or SigLIP encoder, a two-layer projector and a Llama, Mistral or Qwen language model",
}
KEURAL = {  # part -> class of it that the layout has a place for
    "encoder": "vlm.models.encoders.pyramid.Pyramid",
    "connector": "vlm.models.connectors.level_aware.LevelAware",
    "llm": "vlm.models.llms.hf_causal.HFCausal",
}


def export(source: str | Path, to: Target, out: Path) -> Path:
    """source: a run or model folder.   out: a folder that is not there yet, or is empty. Returns: out.

    It is written aside and moved into place, so that what went wrong leaves nothing behind.
    Raises: InputError with the reason why the model does not fit `to`, before anything is written; RunError if the
    folder cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"out: {out} is there and not empty; name a new folder, so that nothing is overwritten")
    folder = model_folder(source)
    kind = read_config(folder)["model"]["_target_"]
    if kind != f"{VLM.__module__}.{VLM.__name__}":
        raise InputError(
            f"to={to}: {folder} is a {kind.rpartition('.')[2]}, which compares pictures with captions and answers nothing; "
            "give its encoder to a model that answers (weights.encoder=RUN in training, encoder=RUN in import_checkpoint) "
            "and export that one"
        )
    model = load_model(folder)
    if reasons := misfits(model, to):
        fitting = [name for name in ("hf", "keural", "merged") if not misfits(model, name)]
        raise InputError(f"to={to}: {folder} does not fit: {'; '.join(reasons)}. It fits: {', '.join(fitting)}")
    writers: dict[str, Callable[[Any, Path], None]] = {"hf": _hf, "keural": _keural, "merged": _merged}
    aside = out.with_name(f".{out.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        writers[to](model, aside)
        aside.replace(out)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{out} cannot be written: {error}; free some space or fix its permissions") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return out


def misfits(model: Any, to: str) -> list[str]:
    """Why the model cannot take this way; nothing if it can."""
    if to in NATIVE:
        have = ", ".join(model.config[part]["_target_"].rpartition(".")[2] for part in KEURAL)
        return [f"that layout is {NATIVE[to]}, and this model is {have}"]
    adapters = getattr(model.llm, "adapters", ())
    if to == "merged":
        return [] if adapters else ["its language model has no adapters, so there is nothing to merge"]
    if to != "keural":
        return []
    found = [
        f"its {part} is {model.config[part]['_target_'].rpartition('.')[2]}, the layout's is {wanted.rpartition('.')[2]}"
        for part, wanted in KEURAL.items()
        if model.config[part]["_target_"] != wanted
    ]
    if tuple(adapters) not in (("sft",), ("sft", "dpo")):
        found.append(f"its adapters are {', '.join(adapters) or 'none'}, the layout has sft, and dpo upon it")
    if not found and staying(model.llm) is None:
        found.append("its language model was trained as a whole, and the layout only names one")
    return found


def _hf(model: Any, folder: Path) -> None:
    home = folder / "model"
    save_model(model, home)
    base = staying(model.llm)
    if base is not None:  # it comes along, so that the folder is enough anywhere
        copy_language_model(Path(base.path), home / "llm")
        _point(home, base.fingerprint)
        _name_base(home)
    elif model.config["llm"]["_target_"] == KEURAL["llm"]:
        tensors = {name: tensor.contiguous().cpu() for name, tensor in model.llm.unquantized()}
        (home / "llm.safetensors").unlink()
        write_language_model(home / "llm", model.llm.model.config, tensors)
        _point(home, fingerprint(tensors))
    config = json.loads((home / "config.json").read_text(encoding="utf-8"))
    write_hub(folder, config, model.llm.spec)
    write_tokenizer(folder, home / "llm", model.processor)


def _keural(model: Any, folder: Path) -> None:
    base = staying(model.llm)
    encoder, projector = (
        {name: tensor.contiguous().cpu() for name, tensor in own_tensors(part).items()}
        for part in (model.encoder, model.connector)
    )
    keural.write(folder, model.config["encoder"], encoder, projector)
    for name in model.llm.adapters:
        settings, tensors = model.config["llm"]["adapters"][name], adapter_tensors(model.llm, name)
        whole = {key: tensor.contiguous().cpu() for key, tensor in tensors.items()}
        # by its name alone: where it lies here means nothing elsewhere
        named = base and BaseSettings(Path(base.path).name, base.fingerprint)
        write_adapter(folder / keural.ADAPTERS[name], settings, whole, named)


def _merged(model: Any, folder: Path) -> None:
    merged = {name: tensor.contiguous().cpu() for name, tensor in merge_adapters(model).items()}
    save_model(model, folder)
    shutil.rmtree(folder / ADAPTERS)
    (folder / "llm.safetensors").unlink(missing_ok=True)
    write_language_model(folder / "llm", model.llm.model.config, merged)
    write_tokenizer(folder / "llm", folder / "llm", model.processor)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kept = {name: config["llm"][name] for name in ("tokenizer", "template")}
    config["llm"] = {"_target_": KEURAL["llm"], "path": "llm", "quantize": None, "adapters": {}, **kept}
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    _point(folder, fingerprint(merged))


def _name_base(home: Path) -> None:
    """PEFT's files name the language model that lies beside them, as seen from the exported folder."""
    for file in (home / ADAPTERS).glob("*/adapter_config.json"):
        config = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**config, "base_model_name_or_path": f"{home.name}/llm"}, indent=2))


def _point(folder: Path, known_by: str) -> None:
    """The language model lies inside the folder."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base"] = {"path": "llm", "fingerprint": known_by}
    file.write_text(json.dumps(config, indent=1))
