"""From a prompt to an answer, for every system; decoding itself is transformers' GenerationMixin."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Literal

import torch
from transformers import GenerationConfig

from vlm.contracts.batch import Batch
from vlm.contracts.errors import InputError
from vlm.models.hf_model import HFModel
from vlm.models.vlm import VLM

Decoding = Literal["greedy", "top_k", "beam"]
PRESETS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "top_k": {"do_sample": True, "top_k": 50, "temperature": 0.8},  # SupraVL-Nano's published values
    # Sums of log-probabilities without length normalisation, as SupraVL-Nano publishes its beam.
    "beam": {"do_sample": False, "num_beams": 3, "length_penalty": 0.0, "early_stopping": "never"},
}

WHOLE = {"max_new_tokens", "num_beams", "top_k"}
BELONGS = {  # options that only some decodings read
    "num_beams": ("beam",),
    "length_penalty": ("beam",),
    "early_stopping": ("beam",),
    "top_k": ("top_k",),
    "top_p": ("top_k",),
    "temperature": ("top_k",),
}


@torch.no_grad()
def answers(model: VLM, batch: Batch, decoding: Decoding = "greedy", **options: Any) -> list[str]:
    """One answer a row. batch: open rows with finished views.

    options: transformers' generation options. Rows of equal length are decoded together, so that no row is padded
    and none depends on its neighbours. Raises: InputError for an unknown decoding or option, or a prompt that
    fills the model's positions.
    """
    settings = _settings(model, decoding, options)
    was_training = model.training
    model.eval()
    try:
        embeds, _ = model.fusion(batch, model.encoder, model.connector, model.llm)
        lengths = (batch.segment >= 0).sum(1).tolist()
        texts = [""] * len(lengths)
        for length in sorted(set(lengths)):
            rows = [row for row, value in enumerate(lengths) if value == length]
            for row, text in zip(rows, _decode(model, embeds[rows, :length], settings), strict=True):
                texts[row] = text
        return texts
    finally:
        model.train(was_training)


def _settings(model: VLM, decoding: str, options: dict[str, Any]) -> dict[str, Any]:
    if decoding not in PRESETS:
        raise InputError(f"decoding={decoding!r} is unknown; choose one of {', '.join(PRESETS)}")
    known = set(GenerationConfig().to_dict())
    unknown = sorted(set(options) - known)
    if unknown:
        raise InputError(f"unknown generation option {', '.join(unknown)}; use transformers' names")
    for name in WHOLE & set(options):
        if not isinstance(options[name], int) or options[name] < 1:
            raise InputError(f"{name}={options[name]!r}: give a whole number from 1 on")
    foreign = sorted(name for name in options if decoding not in BELONGS.get(name, (decoding,)))
    if foreign:
        raise InputError(
            f"{', '.join(foreign)} means nothing to decoding={decoding}; choose decoding={BELONGS[foreign[0]][0]}"
        )
    template, tokenizer = model.processor.template, model.processor.tokenizer
    stops = [tokenizer.special(template.end), tokenizer.special(template.begin)]  # a new beginning is an end, too
    defaults = {"max_new_tokens": template.max_tokens, "eos_token_id": stops, "pad_token_id": stops[0]}
    settings = {**PRESETS[decoding], **defaults, **options}
    if settings.get("num_beams") == 1:  # a beam of one is greedy, and takes none of a beam's settings
        settings = {**PRESETS["greedy"], **defaults, **options}
    return settings


def _decode(model: VLM, embeds: torch.Tensor, settings: dict[str, Any]) -> Sequence[str]:
    room = model.llm.spec.positions - embeds.shape[1] + 1  # type: ignore[union-attr]
    if room < 1:
        raise InputError(
            f"the prompt takes {embeds.shape[1]} positions and the model has {model.llm.spec.positions}; shorten it"  # type: ignore[union-attr]
        )
    settings = {**settings, "max_new_tokens": min(settings["max_new_tokens"], room)}
    seen = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
    decoder: Any = HFModel(model.llm)  # transformers types its own classes only
    try:
        ids = decoder.generate(inputs_embeds=embeds, attention_mask=seen, **settings)
    except (ValueError, TypeError) as error:  # transformers checks its options while it decodes
        raise InputError(f"generation options: {error}") from error
    stops = settings["eos_token_id"]
    return [model.processor.tokenizer.decode(list(takewhile(lambda id: id not in stops, row))) for row in ids.tolist()]
