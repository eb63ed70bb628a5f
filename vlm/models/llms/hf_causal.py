"""A decoder from a local Hugging Face folder, taken apart into embedding, decoder and head."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

from vlm.contracts.errors import InputError, Mismatch
from vlm.contracts.language import LanguageSpec
from vlm.models.attention import attend, kept, lower_right
from vlm.models.llms.head import token_logp
from vlm.models.mask import Spans

# Families whose attention, head and embedding are known to be what the steps below take them for: every layer asks
# the attention interface, the head is one linear layer, and nothing is scaled in between.
FAMILIES = ("llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3", "starcoder2")
WINDOWED_ON_REQUEST = ("qwen2", "qwen3", "smollm3")  # a window counts only with use_sliding_window: true
ATTENTION = "vlm_spans"
FORM = "give a folder with config.json, model.safetensors (or model.safetensors.index.json) and tokenizer.json"


class HFCausal(nn.Module):
    """embeds [R, L, W] + positions -> hidden [R, L, W] after the last norm; names of tensors are those of the folder.

    path: a folder in Hugging Face's form, relative to the working directory. The constructor gives random weights of
    its config.json; `load_pretrained` fills them. Frequencies of rotary positions stay float32 in every precision.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.spec = self.describe(path)
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        whole = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION, dtype=torch.float32)
        self.model, self.lm_head = whole.model, whole.lm_head
        assert self.lm_head.weight.shape == (self.spec.vocabulary, self.spec.width)

    @staticmethod
    def describe(path: str) -> LanguageSpec:
        """positions: not more than a sliding window, within which windowed and full attention are the same."""
        config = _read_config(path)
        family = config.get("model_type")
        if family not in FAMILIES:
            raise Mismatch("path", f"{path}/config.json is of type {family!r}; supported: {', '.join(FAMILIES)}")
        if config.get("quantization_config"):
            raise Mismatch("path", f"{path} holds quantized weights; give the folder of the unquantized model")
        sizes = ("vocab_size", "hidden_size", "max_position_embeddings")
        missing = [name for name in sizes if not isinstance(config.get(name), int)]
        if missing:
            raise Mismatch("path", f"{path}/config.json does not say {', '.join(missing)}; {FORM}")
        vocabulary, width, positions = (config[name] for name in sizes)
        if config.get("sliding_window") and config.get("use_sliding_window", family not in WINDOWED_ON_REQUEST):
            positions = min(positions, config["sliding_window"])
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type"))
        if kind in ("longrope", "su") or (kind == "yarn" and family == "phi3"):  # phi3 calls longrope by three names
            # Beyond this length all frequencies of a call change, so that rows of one batch would not be independent.
            original = rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
            positions = min(positions, original or positions)
        return LanguageSpec(vocabulary=vocabulary, width=width, positions=positions)

    def load_pretrained(self) -> None:
        """Fill the weights from the folder's safetensors; the model's dtype stays.

        Raises: InputError naming files or tensors that are missing, left over, or of another shape.
        """
        state = {name: tensor.detach() for name, tensor in self.state_dict(keep_vars=True).items()}
        faults, given = [], set()
        for name, tensor in _tensors(Path(self.path)):
            if name.endswith("rotary_emb.inv_freq"):  # older files hold them; they follow from config.json
                continue
            wanted = state.get(name)
            if wanted is None:
                faults.append(f"{name} is not part of the model")
            elif wanted.shape != tensor.shape:
                faults.append(f"{name} has shape {list(tensor.shape)}, the model needs {list(wanted.shape)}")
            elif not tensor.is_floating_point() or tensor.element_size() < 2:
                faults.append(f"{name} is {tensor.dtype}: quantized weights")
            elif wanted.data_ptr() in given and not torch.equal(wanted, tensor.to(wanted)):
                faults.append(f"{name} differs from the table that config.json ties it to (tie_word_embeddings)")
            else:
                wanted.copy_(tensor)
                given.add(wanted.data_ptr())
        faults += [f"{name} is missing" for name, tensor in state.items() if tensor.data_ptr() not in given]
        if faults:
            more = f"; and {len(faults) - 8} more" if len(faults) > 8 else ""
            raise InputError(f"llm.path: the weights in {self.path} do not fit: {'; '.join(faults[:8])}{more}")

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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HFCausal:
        buffers = {id(module): dict(module.named_buffers(recurse=False)) for module in self.modules()}
        super()._apply(fn, recurse)  # type: ignore[arg-type]
        for module in self.modules():
            for name, before in buffers[id(module)].items():
                now = getattr(module, name)
                if now.dtype != before.dtype:  # rounded frequencies would turn far positions by visible angles
                    setattr(module, name, before.to(now.device))
        return self


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


def _read_config(path: str) -> dict[str, Any]:
    file = Path(path) / "config.json"
    if not file.is_file():
        what = "has no config.json" if Path(path).is_dir() else f"is no folder (seen from {Path.cwd()})"
        raise Mismatch("path", f"{path} {what}; {FORM}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Mismatch("path", f"{file} is not valid JSON ({error}); copy it again") from error
    if not isinstance(config, dict):
        raise Mismatch("path", f"{file} does not describe a model; {FORM}")
    return config


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the folder, one in memory at a time. Raises: InputError for a file that cannot be read."""
    for file in _files(folder):
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118  # no mapping
                    yield name, opened.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise InputError(f"llm.path: {file} cannot be read ({error}); copy it again") from error


def _files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        found = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "no weights"
        raise InputError(
            f"llm.path: {folder} holds {found}, but neither {single.name} nor {index.name}; save the model with "
            "transformers' save_pretrained, which writes safetensors"
        )
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"llm.path: {index} is damaged ({type(error).__name__}: {error}); copy it again") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(f"llm.path: {folder} lacks {', '.join(missing)}, which {index.name} names; copy them too")
    return [folder / name for name in names]
