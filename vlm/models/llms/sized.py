"""A decoder of a transformers family by its sizes, with random weights; no folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from transformers import AutoConfig

from vlm.contracts.errors import Mismatch
from vlm.contracts.language import LanguageSpec
from vlm.contracts.ranges import PositiveFloat, PositiveInt
from vlm.contracts.recipe import LoraSettings
from vlm.models.llms.decoder import NO_ADAPTERS, Decoder, check_adapters

Family = Literal["llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3", "starcoder2"]


class Sized(Decoder):
    """embeds [R, L, W] + positions -> hidden [R, L, W] after the last norm; full attention, whatever the family's habit.

    heads share kv_heads keys and values.   tie: whether the head is the embedding table.   norm_eps: added to the mean
    square in every norm; null for the family's own.
    """

    def __init__(
        self,
        family: Family,
        vocab_size: PositiveInt,
        width: PositiveInt,
        layers: PositiveInt,
        heads: PositiveInt,
        kv_heads: PositiveInt,
        mlp: PositiveInt,
        max_positions: PositiveInt,
        rope_theta: PositiveFloat,
        tie: bool,
        adapters: dict[str, LoraSettings] = NO_ADAPTERS,
        norm_eps: PositiveFloat | None = None,
    ) -> None:
        self_spec = self.describe(
            family, vocab_size, width, layers, heads, kv_heads, mlp, max_positions, rope_theta, tie, adapters, norm_eps
        )
        config = AutoConfig.for_model(
            family,
            vocab_size=vocab_size,
            hidden_size=width,
            intermediate_size=mlp,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=width // heads,
            max_position_embeddings=max_positions,
            rope_parameters={"rope_type": "default", "rope_theta": float(rope_theta)},
            tie_word_embeddings=tie,
            sliding_window=None,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
            **({} if norm_eps is None else {"rms_norm_eps": float(norm_eps)}),
        )
        super().__init__(config, False, adapters)
        self.spec = self_spec
        if torch.get_default_device().type != "meta":
            self.initialise()

    @staticmethod
    def describe(
        family: str,
        vocab_size: int,
        width: int,
        layers: int,
        heads: int,
        kv_heads: int,
        mlp: int,
        max_positions: int,
        rope_theta: float,
        tie: bool,
        adapters: Mapping[str, Any],
        norm_eps: float | None,
    ) -> LanguageSpec:
        if width % heads:
            raise Mismatch("heads", f"{heads} heads do not divide width {width}")
        if width // heads % 2:
            raise Mismatch(
                "heads", f"rotary positions turn pairs of channels, but width {width} / {heads} heads is odd"
            )
        if heads % kv_heads:
            raise Mismatch("kv_heads", f"{kv_heads} do not divide {heads} heads")
        if norm_eps is not None and family == "starcoder2":
            raise Mismatch("norm_eps", "starcoder2 has norms of another kind; leave it out")
        check_adapters(family, adapters)
        return LanguageSpec(vocabulary=vocab_size, width=width, positions=max_positions)
