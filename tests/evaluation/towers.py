"""Small models that compare pictures with captions, and prepared splits of captioned pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.data_prep.small_splits import Entry, photograph, png, split
from tests.models.speakers import loud
from vlm.library import make
from vlm.losses.contrastive import clip_loss
from vlm.models.two_tower import TwoTower

WORDS = ("red", "blue", "green", "grey", "round", "long", "old", "new")
CONFIG: dict[str, Any] = {
    "model": {
        "_target_": "vlm.models.two_tower.TwoTower", "width": 16, "temperature": 0.07, "scale_limit": 100.0, "bias": None,
    },
    "encoder": {
        "_target_": "vlm.models.encoders.pyramid.Pyramid", "token_budget": 16, "width": 32, "layers": 1, "heads": 2,
        "strides": [2, 2, 1], "saliency": "variance", "saliency_target": 0.3, "kappa": 2.0, "drop_path": 0.0,
        "views": {
            "_target_": "vlm.data.views.Resize", "size": 32, "mean": [0.5] * 3, "std": [0.25] * 3, "fit": "squash",
            "filter": "bilinear", "crop_least": 1.0, "flip": 0.0,
        },
    },
    "connector": None, "llm": None, "fusion": None,
    "text": {
        "_target_": "vlm.models.text_tower.TextTower", "vocab_size": 300, "width": 24, "layers": 1, "heads": 2, "mlp": 32,
        "max_positions": 32, "causal": True,
        "tokenizer": {"_target_": "vlm.data.tokens.TrainedBPE", "size": 300, "lowercase": True},
        "template": {
            "_target_": "vlm.data.template.Template", "begin": "<bos>", "end": "<eos>", "prompt": False, "max_tokens": 32,
        },
    },
}  # fmt: skip


def caption(number: int) -> str:
    """Different for different numbers below 512."""
    return f"a {WORDS[number % 8]} {WORDS[number // 8 % 8]} {WORDS[number // 64]} thing"


def two_towers() -> TwoTower:
    """Random weights, large enough that pictures and captions change every vector."""
    torch.manual_seed(0)
    model: Any = make(CONFIG)
    model.processor.tokenizer.fit([caption(number) for number in range(512)])
    loud(model)
    return model


def taught(model: TwoTower, folder: Path, steps: int = 60) -> TwoTower:
    """The captions of a split learned by heart."""
    from vlm.contracts.batch import PADDING
    from vlm.data.shards import ShardSet

    shards = ShardSet(folder)
    examples = [model.processor.example(shards[row]) for row in range(len(shards))]
    batch = model.processor.finish(model.processor.collate(examples), torch.float32)
    same = torch.eye(len(examples), dtype=torch.bool)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    model.train()
    for _ in range(steps):
        image, _ = model.image_rows(batch.views)
        loss = clip_loss(image, model.text_rows(batch.ids, batch.segment != PADDING), same, model.joint.log_scale)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    return model.eval()


def captioned(path: Path, captions: Sequence[str], **meta: Sequence[Any]) -> Path:
    """A prepared split of as many pictures. meta: of each row."""
    entries = []
    for number, text in enumerate(captions):
        fields = {"kind": "caption", "caption": text, "meta": {key: values[number] for key, values in meta.items()}}
        entries.append(Entry([(png(photograph(number, 40, 30 + number % 3)), f"{number}.png")], fields))
    return split(path, entries)
