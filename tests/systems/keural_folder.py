"""A small model of Keural's form: its encoder, projector, a Mistral in a folder of its own, and both adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.hf_folder import INST, write_model, write_tokenizer
from vlm.build import compose
from vlm.library import make
from vlm.training.weights import save_model

SIZES = ["width=32", "layers=2", "heads=2", "strides=[2,2,2]", "views.size=64", "token_budget=16"]
SMALL = [
    *(f"encoder.{size}" for size in SIZES), "connector.hidden=48", "llm.template.max_tokens=200", "llm.adapters.sft.rank=4",
]  # fmt: skip


def language_folder(folder: Path, **changes: Any) -> Path:
    """A Mistral with its tokenizer and chat template. Returns: the folder."""
    folder.mkdir(parents=True)
    write_tokenizer(folder, INST)
    write_model(folder, "mistral", **{"sliding_window": None, "max_position_embeddings": 256} | changes)
    return folder


def keural_model(base: Path, changes: tuple[str, ...] = (), adapters: str = "sft_dpo") -> Any:
    """Random weights in encoder, projector and adapters, the folder's in the language model."""
    ranks = ["llm.adapters.dpo.rank=2"] if adapters == "sft_dpo" else []
    chosen = [
        "experiment=keural_sft",
        "llm=mistral_7b",
        f"llm.path={base}",
        f"adapter={adapters}",
        *SMALL,
        *ranks,
        *changes,
    ]
    torch.manual_seed(0)
    model = make(compose(chosen).config)
    model.llm.load_pretrained()
    for parameter in model.llm.weights().values():
        parameter.requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(model.connector.levels, std=0.5)
    model.connector.match(1.0)
    return model.eval()


def saved(model: Any, folder: Path) -> Path:
    save_model(model, folder)
    return folder


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8))


def scores(model: Any) -> torch.Tensor:
    """Logits of some text behind a picture."""
    import vlm

    views = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return vlm.logits(model, views, torch.arange(5, 25))
