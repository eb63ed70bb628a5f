"""purevlm's parameters from an .npz file, under the names of the public NumPy project."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from vlm.contracts.errors import InputError
from vlm.interop.foreign import Foreign, take

ENCODER = (
    *("bae1_l", "bae1_r", "bae2_l", "bae2_r", "tp_proj_a", "tp_proj_b"),
    *("bae_deg2_0", "bae_deg2_1", "bae_deg3_0", "bae_deg3_1", "bae_deg3_2"),
)
CONNECTOR = ("vis_proj_l", "vis_proj_r")
TABLES = ("wte", "wpe", "lm_head")
LAYER = ("wq", "wk", "wv", "wo", "mlp_fc1", "mlp_fc2")


def read(path: Path) -> Foreign:
    """Raises: InputError for a file that is no .npz, or a missing or extra tensor."""
    try:
        with np.load(path, allow_pickle=False) as file:
            tensors = {name: torch.from_numpy(file[name]) for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no readable .npz file: {error}") from error
    names = {name: f"encoder.{name}" for name in ENCODER}
    names |= {name: f"connector.{name}" for name in CONNECTOR}
    names |= {name: f"llm.{name}" for name in TABLES}
    names |= {name: f"llm.layers.0.{name}" for name in LAYER}
    found = {ours: take(tensors, name, path) for name, ours in names.items()}
    extra = sorted(tensors.keys() - names.keys())
    if extra:
        raise InputError(f"{path} has tensors that purevlm does not know: {', '.join(extra[:8])}")
    return Foreign(["experiment=purevlm", *_sizes(found)], found, found["llm.wte"].dtype)


def _sizes(found: dict[str, torch.Tensor]) -> list[str]:
    """The widths as the file has them; a size that differs from the published one is no obstacle."""
    side = round(found["encoder.bae1_l"].shape[1] ** 0.5)
    return [
        f"encoder.views.size={side}",
        f"encoder.rank={found['encoder.bae1_l'].shape[0]}",
        f"encoder.products={found['encoder.tp_proj_a'].shape[0]}",
        f"encoder.degree2={found['encoder.bae_deg2_0'].shape[0]}",
        f"encoder.degree3={found['encoder.bae_deg3_0'].shape[0]}",
        f"llm.width={found['llm.wte'].shape[1]}",
        f"llm.mlp={found['llm.layers.0.mlp_fc1'].shape[0]}",
        f"llm.max_positions={found['llm.wpe'].shape[0]}",
    ]
