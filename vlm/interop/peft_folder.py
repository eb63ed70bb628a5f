"""An adapter that somebody else wrote: a PEFT folder, read into what this project has adapters for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vlm.contracts.errors import InputError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
HALVES = (".lora_A.weight", ".lora_B.weight")
PLAIN = {  # keys that would change what the tensors mean -> the values at which they don't
    "peft_type": ("LORA",),
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "layers_to_transform": (None,),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "fan_in_fan_out": (False, None),
    "trainable_token_indices": (None,),
}


@dataclass(frozen=True)
class PeftFolder:
    """settings: as llm.adapters.<name>.   tensors: by PEFT's names.   base: name of the language model, if it is told."""

    folder: Path
    settings: dict[str, Any]
    tensors: dict[str, Tensor]
    base: str | None

    def other_name(self, base: str) -> str | None:
        """What to tell if the folder `base` is of another name than the language model that the adapter was made for."""
        if self.base is None or self.base == base:
            return None
        wanted = Path(self.base).name.lower()
        config = json.loads((Path(base) / "config.json").read_text(encoding="utf-8"))
        if wanted in (Path(base).resolve().name.lower(), Path(config.get("_name_or_path") or "").name.lower()):
            return None
        return f"{self.folder} was trained on {self.base}, and base={base} has another name; its shapes fit"


def read_adapter(folder: Path) -> PeftFolder:
    """Raises: InputError for a file that is missing or damaged, and for a kind of adapter that we do not have."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder}: {CONFIG} and {WEIGHTS} cannot be read ({error}); copy the folder again") from error
    _refuse_other_kinds(folder, config)
    if strange := sorted(name for name in tensors if not name.endswith(HALVES)):
        raise InputError(f"{folder / WEIGHTS} holds {', '.join(strange[:5])}, which is no half of a low-rank adapter")
    if not tensors:
        raise InputError(f"{folder / WEIGHTS} holds no tensors")
    # By the tensors: target_modules may also be a pattern, or the word for all layers.
    targets = sorted({name.split(".")[-3] for name in tensors})
    settings = {
        "rank": config["r"],
        "alpha": float(config["lora_alpha"]),
        "dropout": float(config.get("lora_dropout") or 0.0),
        "targets": targets,
    }
    return PeftFolder(folder, settings, tensors, config.get("base_model_name_or_path") or None)


def _refuse_other_kinds(folder: Path, config: Mapping[str, Any]) -> None:
    for key, allowed in PLAIN.items():
        if config.get(key, allowed[0]) not in allowed:
            raise InputError(
                f"{folder / CONFIG}: {key} is {config[key]!r}; only plain low-rank adapters are read ({key}: {allowed[0]!r}), "
                "so merge this one into its base with PEFT"
            )
    for key in ("r", "lora_alpha"):
        if not isinstance(config.get(key), int | float):
            raise InputError(f"{folder / CONFIG} does not say {key}")
