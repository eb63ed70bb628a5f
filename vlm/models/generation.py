"""From prompts to answers, for every system; decoding itself is transformers' GenerationMixin."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessorList
from transformers.cache_utils import DynamicCache

from vlm.contracts.batch import VISUAL
from vlm.contracts.errors import InputError
from vlm.contracts.example import Example
from vlm.models.draws import Draws
from vlm.models.hf_model import HFModel, Prefix
from vlm.models.vlm import VLM

Decoding = Literal["greedy", "top_k", "beam", "sampled"]
PRESETS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "top_k": {"do_sample": True, "top_k": 50, "temperature": 0.8},  # SupraVL-Nano's published values
    # Sums of log-probabilities without length normalisation, as SupraVL-Nano publishes its beam.
    "beam": {"do_sample": False, "num_beams": 3, "length_penalty": 0.0, "early_stopping": "never"},
    # The greatest of scores with noise of the row's own (vlm.models.draws).
    "sampled": {"do_sample": False, "temperature": 1.0, "seed": 0},
}

WHOLE = {"max_new_tokens", "num_beams", "top_k"}
BELONGS = {  # options that only some decodings read
    "num_beams": ("beam",),
    "length_penalty": ("beam",),
    "early_stopping": ("beam",),
    "top_k": ("top_k",),
    "top_p": ("top_k",),
    "temperature": ("top_k", "sampled"),
    "seed": ("sampled",),
}
TOGETHER = 256  # rows decoded together


@dataclass(frozen=True)
class Said:
    """An answer's text.   ended: whether the model closed it, rather than the longest length."""

    text: str
    ended: bool


@torch.no_grad()
def answers(
    model: VLM, examples: Sequence[Example], decoding: Decoding = "greedy", together: int = TOGETHER, **options: Any
) -> list[Said]:
    """One answer an example, in order. examples: open rows with finished views (`Processor.question`, `prompt`).

    Rows that begin with the same pictures and text share them: their pictures are encoded once, and what lies up to
    the last picture goes through the language model once. Rows of equal length are decoded together, so that no row
    is padded and none depends on its neighbours. together: rows at a time.
    options: `token_budget` as the examples were made with, and transformers' generation options. Decoding "sampled"
    draws by `seed` and the example's key, at `temperature`; both are the answer's alone, so it is the same whatever
    is decoded beside it.
    Raises: InputError for an unknown decoding or option, or a prompt that fills the model's positions.
    """
    budget = options.pop("token_budget", None)
    settings = _settings(model, decoding, options)
    draw = (
        partial(Draws, seed=settings.pop("seed"), temperature=settings.pop("temperature"))
        if decoding == "sampled"
        else None
    )
    with evaluating(model):
        fronts, front_of = _fronts(examples)
        begun = _begun(model, fronts, budget)
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, example in enumerate(examples):
            alike[len(fronts[front_of[number]].ids), len(example.ids)].append(number)
        said: dict[int, Said] = {}
        for (front, length), rows in sorted(alike.items()):
            _refuse_long(model, length)
            for first in range(0, len(rows), together):
                part = rows[first : first + together]
                places = [front_of[number] for number in part]
                rest = torch.stack([examples[number].ids[front:] for number in part])
                prefix, embeds = begun[front].followed_by(places, model.llm.embed(rest.to(begun[front].device)))  # type: ignore[operator, union-attr]
                drawn = draw([examples[number].key for number in part]) if draw else None
                said |= zip(part, _decode(model, embeds, prefix, length, settings, drawn), strict=True)
        return [said[number] for number in range(len(examples))]


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@dataclass(frozen=True)
class _Begun:
    """Fronts of one length, worked off but for their last position: a picture's token has no id to be embedded by.

    rows: front -> its row.   cached: of all but the last position.   last: [F, 1, W], embeddings of the last one.
    """

    rows: dict[int, int]
    cached: Prefix
    last: Tensor

    @property
    def device(self) -> torch.device:
        return self.last.device

    def followed_by(self, fronts: Sequence[int], rest: Tensor) -> tuple[Prefix, Tensor]:
        """rest [R, T, W]: embeddings of what follows each of `fronts` -> what is cached, and what is to be worked off."""
        rows = torch.tensor([self.rows[front] for front in fronts], device=self.device)
        return self.cached.select(rows), torch.cat([self.last[rows], rest], 1)


def _fronts(examples: Sequence[Example]) -> tuple[list[Example], list[int]]:
    """The different beginnings, up to and with the last picture (of text alone its first token); which each has."""
    places: dict[tuple[Any, ...], int] = {}
    fronts, front_of = [], []
    for example in examples:
        visual = (example.ids == VISUAL).nonzero()
        end = int(visual[-1]) + 1 if len(visual) else 1
        key = (tuple(example.ids[:end].tolist()), tuple(example.pictures[slot] for slot in example.slots))
        if key not in places:
            places[key] = len(fronts)
            cut = {name: getattr(example, name)[:end] for name in ("ids", "labels", "positions", "segment")}
            fronts.append(replace(example, **cut))
        front_of.append(places[key])
    return fronts, front_of


def _begun(model: VLM, fronts: Sequence[Example], budget: int | None) -> dict[int, _Begun]:
    """Length of fronts -> these fronts, their pictures encoded and their keys and values cached."""
    parameter = next(model.parameters())
    batch = model.processor.collate(fronts, budget).to(parameter.device)
    batch = replace(batch, views=batch.views.to(parameter.dtype))
    embeds, _ = model.fusion(batch, model.encoder, model.connector, model.llm)
    alike: dict[int, list[int]] = defaultdict(list)
    for number, front in enumerate(fronts):
        alike[len(front.ids)].append(number)
    found = {}
    for length, rows in alike.items():
        cache = DynamicCache()
        if length > 1:
            model.llm(embeds[rows, : length - 1], batch.positions[rows, : length - 1], None, cache, keep=1)
        last = embeds[rows, length - 1 : length]
        found[length] = _Begun({number: row for row, number in enumerate(rows)}, Prefix.of(cache), last)
    return found


def _settings(model: VLM, decoding: str, options: dict[str, Any]) -> dict[str, Any]:
    if decoding not in PRESETS:
        raise InputError(f"decoding={decoding!r} is unknown; choose one of {', '.join(PRESETS)}")
    known = {"seed", *GenerationConfig().to_dict()}
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
    if isinstance(options.get("eos_token_id"), int):
        options = {**options, "eos_token_id": [options["eos_token_id"]]}
    settings = {**PRESETS[decoding], **defaults, **options}
    if settings.get("num_beams") == 1:  # a beam of one is greedy, and takes none of a beam's settings
        settings = {**PRESETS["greedy"], **defaults, **options}
    return settings


def _refuse_long(model: VLM, length: int) -> None:
    positions = model.llm.spec.positions  # type: ignore[union-attr]
    if length > positions:  # type: ignore[operator]
        raise InputError(f"the prompt takes {length} positions and the model has {positions}; shorten it")


def _decode(
    model: VLM, embeds: Tensor, prefix: Prefix, length: int, settings: dict[str, Any], drawn: Draws | None
) -> Iterator[Said]:
    """length: positions of the whole prompt.   drawn: noise of each row, None for none."""
    room = model.llm.spec.positions - length + 1  # type: ignore[union-attr, operator]
    settings = {**settings, "max_new_tokens": min(settings["max_new_tokens"], room)}
    seen = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
    decoder: Any = HFModel(model.llm, prefix)  # transformers types its own classes only
    try:
        noise = LogitsProcessorList([] if drawn is None else [drawn])
        ids = decoder.generate(inputs_embeds=embeds, attention_mask=seen, logits_processor=noise, **settings)
    except (ValueError, TypeError) as error:  # transformers checks its options while it decodes
        raise InputError(f"generation options: {error}") from error
    stops = settings["eos_token_id"]
    for row in ids.tolist():
        text = list(takewhile(lambda id: id not in stops, row))
        yield Said(model.processor.tokenizer.decode(text), ended=len(text) < len(row))
