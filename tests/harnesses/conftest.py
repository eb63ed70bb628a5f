"""A tiny saved model that answers in letters, and pictures to ask it about."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import vlm
from vlm.training.weights import save_model

COLOURS = ("red", "blue", "green", "black")
WORDS = [
    "data=mnist", "experiment=supravl_nano", "llm.template.prompt=true", "llm.template.max_tokens=300",
    "llm.max_positions=360", "llm.layers=1", "llm.width=32", "llm.mlp=64", "llm.tokenizer.size=300",
]  # fmt: skip


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large random weights, so that its answers differ from question to question and from picture to picture."""
    model = vlm.build_model(WORDS)
    tokenizer = model.processor.tokenizer
    tokenizer.fit(["yes no a b c d cat dog fox what is in the picture? answer with a single word or phrase."] * 3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*model.llm.parameters(), *model.connector.parameters()):
            parameter.normal_(0, 0.3, generator=generator)
        for id in range(300):  # never said: parts of letters and what harnesses strip
            text = tokenizer.decode([id])
            if not (text.strip() == text and text.isascii() and text.isprintable() and text):
                model.llm.tok_emb.weight[id] = 0
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(model, folder)
    return folder


def square(colour: str) -> Image.Image:
    return Image.new("RGB", (80, 60), colour)
