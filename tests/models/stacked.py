"""A small model with two adapters, one upon the other, and batches of pairs for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.models.layouts import VIEWS, VISION, Segment, batch_of
from vlm.contracts.batch import IGNORE, Batch
from vlm.contracts.recipe import LoraSettings
from vlm.models.assemble import create
from vlm.models.llms.hf_causal import HFCausal
from vlm.models.vlm import VLM

TARGETS = ["q_proj", "v_proj", "up_proj", "down_proj"]


def stacked_model(folder: Path, dropout: float = 0.0, started: bool = False) -> VLM:
    """A Llama with the adapters `sft` and `dpo`. folder: of tests.hf_folder.whole.

    The lower adapter has learned something.   started: so has the upper one.
    """
    torch.manual_seed(3)
    llm = HFCausal(str(folder), adapters={name: LoraSettings(4, 8.0, dropout, TARGETS) for name in ("sft", "dpo")})
    llm.load_pretrained()
    return with_pictures(llm, started)


def with_pictures(llm: Any, started: bool = False) -> VLM:
    torch.manual_seed(4)
    encoder = create(VISION["encoder"], views=VIEWS)
    connector = create(VISION["connector"], source=encoder.spec, width=llm.spec.width)
    fusion = create(VISION["fusion"], source=connector.spec, width=llm.spec.width)
    for name, parameter in llm.named_parameters():
        if "lora_B.sft" in name or (started and "lora_B" in name):
            torch.nn.init.normal_(parameter, std=0.1)
    return VLM(encoder, connector, llm, fusion, config={})


def pair_row(number: int, prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int]) -> list[Segment]:
    """A branch begins with the prompt's last token."""
    *before, last = prompt
    return [
        Segment(tuple(before), picture=number, sample=number),
        Segment((last, *chosen), above=0, sample=number),
        Segment((last, *rejected), above=0, sample=number),
    ]


PAIRS = [
    ((3, 1, 4), (5, 9, 2), (5, 8)),
    ((3, 1, 4, 1, 5, 9), (7,), (7, 9, 3, 2)),
    ((2, 7, 1), (8, 2, 8, 1), (8, 2, 9, 1)),
    ((6, 2), (3, 3, 3), (4,)),
    ((9, 9, 8), (5, 1), (2, 2, 2, 2, 2)),
    ((1, 4), (6,), (5,)),
    ((8, 3, 1, 2, 2), (4, 4, 9), (4, 9, 9)),
    ((7, 7), (1, 2, 3, 4, 5), (1, 2)),
]


def pairs_batch(model: VLM, pairs: Sequence[tuple] = PAIRS, packed: bool = False, padding: int = 0) -> Batch:
    rows = [pair_row(number, *pair) for number, pair in enumerate(pairs)]
    answers = [len(answer) for _, *both in pairs for answer in both]
    if packed:
        joined: list[Segment] = []
        for row in rows:
            begin = len(joined)
            joined += [replace(one, above=one.above + begin if one.above >= 0 else -1) for one in row]
        rows = [joined]
    batch = batch_of(model, rows, answers, padding)
    changed = (batch.labels != IGNORE) & (batch.ids % 2 == 1)
    return replace(batch, changed=changed)
