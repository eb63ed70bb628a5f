"""A language model and its tokenizer as a folder in Hugging Face's form."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedTokenizerFast

from vlm.contracts.errors import InputError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = "5GB"  # largest file of weights
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def copy_language_model(source: Path, target: Path) -> None:
    """The files of weights; what is small is there already. Raises: InputError if the source has lost them."""
    names = [SINGLE]
    if not (source / SINGLE).is_file():
        if not (source / INDEX).is_file():
            raise InputError(f"{source} holds neither {SINGLE} nor {INDEX}; put the language model back")
        weights = json.loads((source / INDEX).read_text(encoding="utf-8"))["weight_map"]
        names = [INDEX, *sorted(set(weights.values()))]
    for name in names:
        shutil.copyfile(source / name, target / name)


def write_language_model(folder: Path, config: PretrainedConfig, tensors: dict[str, Tensor]) -> None:
    folder.mkdir(exist_ok=True)
    described = type(config).from_dict(config.to_dict())
    causal: Any = AutoModelForCausalLM._model_mapping[type(config)]  # pyright: ignore[reportAttributeAccessIssue]
    described.architectures = [causal.__name__]
    described.dtype = next(iter(tensors.values())).dtype
    described.save_pretrained(folder)
    for old in folder.glob("model*.safetensors*"):
        old.unlink()
    with _without_remarks():
        save_torch_state_dict(tensors, folder, max_shard_size=SHARD)


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """It remarks where it wrote, by a logger outside of its library's: a folder that is about to be moved into place."""
    remarks: logging.Logger = sys.modules[save_torch_state_dict.__module__].logger
    level = remarks.level
    remarks.setLevel(logging.WARNING)
    try:
        yield
    finally:
        remarks.setLevel(level)


def write_tokenizer(folder: Path, source: Path, processor: Any) -> None:
    """As transformers reads it: that of the folder `source`, or else the model's own, which was learned."""
    if (source / "tokenizer.json").is_file():
        for name in TOKENIZER:
            if (source / name).is_file() and source != folder:
                shutil.copyfile(source / name, folder / name)
        return
    template = processor.template
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=processor.tokenizer.engine, bos_token=template.begin, eos_token=template.end,
        pad_token=template.end, padding_side="left",
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    tokenizer.save_pretrained(folder)
