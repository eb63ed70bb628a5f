"""The border to transformers: our composite as a `PreTrainedModel` that `GenerationMixin` can decode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast


class HFConfig(PretrainedConfig):
    """The few figures that decoding asks for."""

    model_type = "vlm_composite"

    def __init__(self, num_hidden_layers: int = 1, vocab_size: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_hidden_layers, self.vocab_size = num_hidden_layers, vocab_size


@dataclass(frozen=True)
class Prefix:
    """Keys and values of positions that were worked off before: (k, v) a layer, each [R, H, L, d]; () for none."""

    layers: Sequence[tuple[Tensor, Tensor]] = ()

    @classmethod
    def of(cls, cache: Cache) -> Prefix:
        return cls([(layer.keys, layer.values) for layer in cache.layers])  # type: ignore[misc, attr-defined]

    def select(self, rows: Tensor) -> Prefix:
        return Prefix([(keys[rows], values[rows]) for keys, values in self.layers])

    def fill(self, cache: Cache, rows: int) -> None:
        """Into an empty cache of `rows` rows, a multiple of those here (beams)."""
        for number, (keys, values) in enumerate(self.layers):
            times = rows // keys.shape[0]
            if times > 1:
                keys, values = keys.repeat_interleave(times, 0), values.repeat_interleave(times, 0)
            cache.update(keys, values, number)


NOTHING = Prefix()


def empty_cache() -> Cache:
    """Keys and values of no position yet, as every language model here takes them."""
    return DynamicCache()


class HFModel(PreTrainedModel, GenerationMixin):
    """A view on a trained language model: it owns no weights of its own and is made anew for each call.

    prefix: what stands before the embeddings that a call begins with.
    """

    config_class = HFConfig
    main_input_name = "input_ids"

    def __init__(self, llm: nn.Module, prefix: Prefix = NOTHING) -> None:
        layers = sum(1 for name, _ in llm.named_modules() if name.rpartition(".")[2].isdigit())
        super().__init__(HFConfig(num_hidden_layers=layers, vocab_size=llm.spec.vocabulary))  # type: ignore[union-attr]
        self.llm, self.prefix = llm, prefix
        self.generation_config = GenerationConfig()

    def get_input_embeddings(self) -> nn.Module:
        return self.llm

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,  # transformers looks for this very name
    ) -> dict[str, Any]:
        first = past_key_values is None or past_key_values.get_seq_length() == 0
        if first and inputs_embeds is not None:
            return {"inputs_embeds": inputs_embeds, "past_key_values": past_key_values}
        return {"input_ids": input_ids[:, -1:], "past_key_values": past_key_values}

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,  # of ones: rows of one call are equally long
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        embeds = self.llm.embed(input_ids) if inputs_embeds is None else inputs_embeds  # type: ignore[operator]
        cache = DynamicCache() if past_key_values is None else past_key_values
        if cache.get_seq_length() == 0:
            self.prefix.fill(cache, embeds.shape[0])
        begin = cache.get_seq_length()
        positions = torch.arange(begin, begin + embeds.shape[1], device=embeds.device).expand(embeds.shape[0], -1)
        hidden = self.llm(embeds, positions, None, cache)
        return CausalLMOutputWithPast(
            logits=self.llm.logits(hidden[:, -1:]),  # type: ignore[operator]
            past_key_values=cache,
        )
