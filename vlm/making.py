"""A model and its processor from plain nodes: the one way, in this project and in exported folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm.contracts.vision import FixedCount, VisionSpec
from vlm.data.captions import CaptionProcessor
from vlm.data.processor import Processor
from vlm.models.assemble import assemble, create
from vlm.training.weights import reader_of, resolve_paths


def make(config: Mapping[str, Any]) -> Any:
    """A model and its processor for the checked nodes; a language model that a folder fills has no weights yet."""
    views = create(config["encoder"]["views"])
    model = assemble(config, views.spec)
    name = reader_of(config)
    tokenizer, template = create(config[name]["tokenizer"]), create(config[name]["template"])
    positions = getattr(model, name).spec.positions
    if name == "llm":
        model.processor = Processor(views, tokenizer, template, model.fusion.spec, positions)
    else:  # no visual tokens stand in the text
        spec = VisionSpec(model.encoder.spec.width, FixedCount(0))
        model.processor = CaptionProcessor(views, tokenizer, template, spec, positions)
    return model


def make_saved(config: Mapping[str, Any], folder: Path) -> Any:
    """For the nodes of the model that `folder` holds, with its learned tokenizer; their paths are made whole."""
    resolve_paths(config, folder)
    model = make(config)
    if (folder / "tokenizer.json").exists():
        model.processor.tokenizer.load(folder / "tokenizer.json")
    return model
