"""What an exported folder's config.json names: our models and processors as transformers loads them.

This file and all that it needs are copied into the folder, so that it opens where this project is not installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from vlm.interop.hub_model import HubConfig, HubModel
from vlm.interop.hub_processor import HubProcessor
from vlm.making import make_saved
from vlm.training.weights import load_saved, saved_dtype

__all__ = ["HubConfig", "VisionLanguageModel", "VisionLanguageProcessor"]


class VisionLanguageModel(HubModel):
    """Reads the folder `model` inside the exported one."""

    @staticmethod
    def read(folder: Path) -> Any:
        model = _made(folder).to(saved_dtype(folder))
        load_saved(model, folder)
        return model.eval()


class VisionLanguageProcessor(HubProcessor):
    """Reads the folder `model` inside the exported one."""

    @staticmethod
    def read(folder: Path) -> Any:
        with torch.device("meta"):  # sizes are all that is asked for
            model = _made(folder)
        return model.processor, model.llm.spec.vocabulary


def _made(folder: Path) -> Any:
    return make_saved(json.loads((folder / "config.json").read_text(encoding="utf-8")), folder)
