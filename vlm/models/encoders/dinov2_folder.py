"""DINOv2's tensors under this project's names, and its folder in Hugging Face's form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Size, Tensor

from vlm.contracts.errors import InputError

FILE = "model.safetensors"
FORM = "give a folder with the model.safetensors of a DINOv2 in Hugging Face's form, of the size that the encoder's keys say"

# Part of a published name -> ours. The attention's inner names changed with transformers 5; files hold either.
PARTS = {
    "embeddings.cls_token": "cls",
    "embeddings.mask_token": "mask",
    "embeddings.position_embeddings": "positions",
    "embeddings.patch_embeddings.projection": "patches",
    "layernorm": "norm",
    "attention.attention.query": "q",
    "attention.attention.key": "k",
    "attention.attention.value": "v",
    "attention.output.dense": "out",
    "attention.q_proj": "q",
    "attention.k_proj": "k",
    "attention.v_proj": "v",
    "attention.o_proj": "out",
    "layer_scale1.lambda1": "scale1",
    "layer_scale2.lambda1": "scale2",
    "mlp.fc1": "grow",
    "mlp.fc2": "shrink",
}
LAYER = re.compile(r"^(?:encoder\.)?layer\.(\d+)\.(.+)$")


def own_name(published: str) -> str:
    """A tensor's name here; one that is not known comes back as it is."""
    name = published.removeprefix("dinov2.")
    layer = LAYER.match(name)
    front, inner = (f"blocks.{layer[1]}.", layer[2]) if layer else ("", name)
    for part, own in PARTS.items():
        if inner == part or inner.startswith(f"{part}."):
            return front + own + inner[len(part) :]
    return front + inner


def read_folder(path: str, wanted: Mapping[str, Size]) -> dict[str, Tensor]:
    """The tensors of a folder under our names. wanted: name -> shape.

    Raises: InputError naming what is unreadable, missing, of another shape, or has no place here.
    """
    file = Path(path) / FILE
    try:
        found = {own_name(name): tensor for name, tensor in load_file(file).items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"encoder.path: {file} cannot be read: {error}; {FORM}") from error
    faults = [f"{name} is missing" for name in wanted if name not in found]
    faults += [f"{name} has no place here" for name in found if name not in wanted]
    faults += [
        f"{name} has shape {list(tensor.shape)}, not {list(wanted[name])}"
        for name, tensor in found.items()
        if name in wanted and tensor.shape != wanted[name]
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise InputError(f"encoder.path: {file}: {', '.join(faults[:5])}{more}; {FORM}")
    return found
