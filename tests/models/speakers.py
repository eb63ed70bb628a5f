"""Small models that answer: random weights large enough that pictures and questions change every answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import vlm
from tests.hf_folder import whole
from vlm.contracts.example import Example
from vlm.contracts.sample import Turn
from vlm.models.vlm import VLM

NAMES = ("gpt2_nano", "purevlm", "hf_causal")
SMALL = ["encoder=cnn", "encoder.channels=[4,8]", "encoder.grid=2", "encoder.views.size=16", "connector=linear"]
GPT2 = ["llm=gpt2_nano", "llm.width=32", "llm.layers=2", "llm.mlp=64", "llm.max_positions=96", "llm.tokenizer.size=300"]
READS = ["llm.template.prompt=true", "data=mnist", "phase.max_steps=1"]
SHORT = ["llm.template.max_tokens=20", "connector.repeat=4"]
TEXTS = [
    "is it a red thing?",
    "yes",
    "no",
    "what is one and the other",
    "zero one two three four five six seven eight nine",
]
TEXT = "ninezerotwo"  # its beginnings are questions that every model's alphabet can write


def speaker(name: str, folder: Path) -> VLM:
    """name: one of NAMES.   folder: an empty one for what a model is made from."""
    torch.manual_seed(0)
    if name == "purevlm":
        model = vlm.build_model(["experiment=purevlm", "llm.template.prompt=true", *SHORT])
    elif name == "gpt2_nano":
        model = vlm.build_model([*SMALL, *GPT2, *READS, "llm.template.max_tokens=60"])
        model.processor.tokenizer.fit(TEXTS)
    else:
        whole(folder)
        words = ["llm=hf_causal", f"llm.path={folder}", "llm.template.max_tokens=64", "data=mnist", "phase.max_steps=1"]
        model = vlm.build_model([*SMALL, *words])
        model.llm.load_pretrained()  # type: ignore[operator]
    return loud(model)


def loud(model: VLM, std: float = 0.3) -> VLM:
    """Weights drawn anew, from a fixed seed."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=2.0 if name.startswith("connector.") else std)
    return model.eval()


def views(model: VLM, count: int) -> list[list[Tensor]]:
    """Ready pictures of one view each."""
    shape = model.processor.views.spec
    drawn = torch.randn(count, shape.channels, shape.height, shape.width, generator=torch.Generator().manual_seed(5))
    return [[view] for view in drawn]


def asked(model: VLM, made: Sequence[Sequence[Tensor]], parts: Sequence[str | int], first: int = 0) -> Example:
    """One turn about pictures that are called first, first + 1 ..."""
    return model.processor.prompt((Turn("user", tuple(parts)),), made, range(first, first + len(made)))
