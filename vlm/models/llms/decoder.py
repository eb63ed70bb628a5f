"""What decoders built by transformers share: taken apart into embedding, decoder and head, with adapters around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM, PretrainedConfig

from vlm.contracts.errors import InputError, Mismatch
from vlm.contracts.language import LanguageSpec
from vlm.contracts.parts import ADAPTER, logical
from vlm.contracts.recipe import LoraSettings
from vlm.models.attention import attend, kept, lower_right
from vlm.models.llms.adapters import put_around, without_uppermost
from vlm.models.llms.head import token_logp
from vlm.models.llms.quantize import four_bit_layer, is_quantized, quantize
from vlm.models.mask import Spans

GATED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Families whose attention, head and embedding are known to be what the steps below take them for: every layer asks
# the attention interface, the head is one linear layer, and nothing is scaled in between. With their linear layers.
FAMILIES = {
    "llama": GATED,
    "mistral": GATED,
    "olmo2": GATED,
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "qwen2": GATED,
    "qwen3": GATED,
    "smollm3": GATED,
    "starcoder2": ("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"),
}
ATTENTION = "vlm_spans"
NO_ADAPTERS: dict[str, LoraSettings] = {}


class Decoder(nn.Module):
    """embeds [R, L, W] + positions -> hidden [R, L, W] after the last norm.

    It has no weights at first (they are on the device "meta"): `initialise` draws random ones, `put` takes given ones.
    Adapters have theirs at once. Frequencies of rotary positions stay float32 in every precision.
    adapters: their names, lowest first.   vocabulary: size of the embedding table.
    """

    spec: LanguageSpec

    def __init__(self, config: PretrainedConfig, in_four_bits: bool, adapters: Mapping[str, LoraSettings]) -> None:
        super().__init__()
        packed = four_bit_layer() if in_four_bits else None  # first: what follows takes its time
        with torch.device("meta"):  # 7 billion random numbers that a folder overwrites take minutes and all memory
            whole = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION, dtype=torch.float32)
        self.model, self.lm_head = whole.model, whole.lm_head
        for module in list(self.model.modules()):
            for name, child in list(module.named_children()):
                if any(buffer.is_meta for buffer in child.buffers(recurse=False)):
                    setattr(module, name, type(child)(config))  # tables of positions follow from the configuration
        if packed is not None:
            quantize(self.model, packed)
        put_around(self.model, adapters)
        self.adapters = tuple(adapters)

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.embed_tokens(ids)

    def forward(
        self,
        embeds: Tensor,
        positions: Tensor,
        mask: Tensor | Spans | None = None,
        cache: Any = None,
        keep: int | Tensor | None = None,
    ) -> Tensor:
        seen = self.model(
            inputs_embeds=embeds,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            seen_by=mask,  # handed down to `_attention`, through every layer
        ).last_hidden_state
        return kept(seen, keep)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.lm_head(hidden)

    def logp(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return token_logp(hidden, targets, self.logits)

    def below(self) -> AbstractContextManager[None]:
        """Inside it this is the model without its uppermost adapter; for use without gradients."""
        return without_uppermost(self.model, self.adapters)

    # -- weights ----------------------------------------------------------------------------------------------

    @property
    def is_quantized(self) -> bool:
        return is_quantized(self)

    @torch.no_grad()
    def initialise(self) -> None:
        """Random weights, as the family draws them, wherever there are none yet."""
        for module in list(self.modules()):
            missing = {name: p for name, p in module.named_parameters(recurse=False) if p.is_meta}
            packs = hasattr(module, "pack")
            for name, parameter in missing.items():
                fresh = torch.zeros_like(parameter, device="cpu", requires_grad=False)
                if packs and name == "weight":
                    fresh.normal_(std=self.model.config.initializer_range)
                self._settle(module, name, fresh)
            if missing and not packs:
                self.model._init_weights(module)

    def weights(self) -> dict[str, Tensor]:
        """Parameters without those of adapters, under the names of a folder; a shared table under each of its names."""
        found = ((logical(name), tensor) for name, tensor in self.state_dict(keep_vars=True).items())
        return {name: tensor for name, tensor in found if not name.startswith(f"{ADAPTER}.")}

    @torch.no_grad()
    def put(self, name: str, tensor: Tensor) -> None:
        """Set one weight by the name that `weights` gives it; the model's dtype stays."""
        path, _, attribute = name.rpartition(".")
        module = self.get_submodule(path)
        module = getattr(module, "base_layer", module)
        self._settle(module, attribute, tensor)

    def unquantized(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight as it is without quantization, a shared one once. Raises: InputError if there is none such."""
        if self.is_quantized:
            raise InputError("the language model has quantized weights only; adapters are merged into unquantized ones")
        seen: set[int] = set()
        for name, tensor in self.weights().items():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, tensor.detach()

    def _settle(self, module: nn.Module, name: str, tensor: Tensor) -> None:
        old = getattr(module, name)
        if name == "weight" and hasattr(module, "pack"):
            module.pack(tensor.to("cpu" if old.is_meta else old.device))  # type: ignore[operator]
        elif not old.is_meta:
            old.copy_(tensor)
        else:
            fresh = torch.empty_like(old, device="cpu", requires_grad=False).copy_(tensor)
            new = nn.Parameter(fresh, requires_grad=old.requires_grad)
            for other in self.modules():
                for key, parameter in list(other.named_parameters(recurse=False)):
                    if parameter is old:  # a tied table has two homes
                        setattr(other, key, new)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Decoder:
        buffers = {id(module): dict(module.named_buffers(recurse=False)) for module in self.modules()}
        super()._apply(fn, recurse)  # type: ignore[arg-type]
        for module in self.modules():
            for name, before in buffers[id(module)].items():
                now = getattr(module, name)
                if now.dtype != before.dtype:  # rounded frequencies would turn far positions by visible angles
                    setattr(module, name, before.to(now.device))
        return self


def check_adapters(family: str, adapters: Mapping[str, Any]) -> None:
    """adapters: records, or mappings with their keys. Raises: Mismatch for names and layers that cannot be."""
    for name, settings in adapters.items():
        if not name.isidentifier() or name in "lora_":
            message = "use letters, digits and _, and no part of the word lora_, which PEFT keeps for itself"
            raise Mismatch("adapters", f"{name!r} is no name for an adapter; {message}")
        targets = settings["targets"] if isinstance(settings, Mapping) else settings.targets
        unknown = [target for target in targets if target not in FAMILIES[family]]
        if unknown:
            raise Mismatch(
                "adapters",
                f"{name}.targets names {', '.join(unknown)}; the layers of {family} are {', '.join(FAMILIES[family])}",
            )


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    dropout: float = 0.0,
    scaling: float | None = None,
    seen_by: Tensor | Spans | None = None,
    **kwargs: Any,  # transformers' own switches; those that would change the result are refused by FAMILIES
) -> tuple[Tensor, None]:
    """As transformers calls it: [R, H, Q, d] and [R, H', K, d] -> [R, Q, H, d]."""

    def core(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        queries, keys = q.shape[2], k.shape[2]
        if mask is None and 1 < queries < keys:
            mask = lower_right(queries, keys, q.device)
        groups = q.shape[1] // k.shape[1]
        if groups > 1 and mask is not None:  # with a mask, kernels that know grouped heads are the slow ones
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        plain = mask is None and queries > 1
        return nn.functional.scaled_dot_product_attention(
            q, k, v, mask, dropout, plain, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )

    return attend(query, key, value, seen_by, core), None


AttentionInterface.register(ATTENTION, _attention)
