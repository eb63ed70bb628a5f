"""A llama model in a GGUF file: sizes, tensors under Hugging Face's names, tokenizer and chat template."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from vlm.contracts.errors import InputError

NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
CONTROL = 3  # kind of a token that text never becomes


class GgufFile:
    """Raises: InputError for a missing reader, and for a file of another form than the one this was written for."""

    def __init__(self, path: Path) -> None:
        if importlib.util.find_spec("gguf") is None:
            raise InputError(
                "reading GGUF files needs the library gguf; install it with: pip install -c constraints.txt gguf"
            )
        from gguf import GGUFReader

        self._reader = GGUFReader(str(path))
        kinds = self.says("general.architecture"), self.says("tokenizer.ggml.model"), self.says("tokenizer.ggml.pre")
        if kinds != ("llama", "gpt2", "smollm"):
            raise InputError(f"{path} holds {', '.join(map(str, kinds))}; only llama with SmolLM's tokenizer is read")

    def says(self, key: str) -> Any:
        """A value of the header, None if it has none."""
        field = self._reader.get_field(key)
        return None if field is None else field.contents()

    def config(self) -> dict[str, Any]:
        """As config.json has it."""
        heads, width = self.says("llama.attention.head_count"), self.says("llama.embedding_length")
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.says("llama.vocab_size"),
            "hidden_size": width,
            "intermediate_size": self.says("llama.feed_forward_length"),
            "num_hidden_layers": self.says("llama.block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self.says("llama.attention.head_count_kv"),
            "head_dim": width // heads,
            "max_position_embeddings": self.says("llama.context_length"),
            "rms_norm_eps": round(self.says("llama.attention.layer_norm_rms_epsilon"), 8),  # written as float32
            "rope_theta": self.says("llama.rope.freq_base"),
            "tie_word_embeddings": not any(tensor.name == "output.weight" for tensor in self._reader.tensors),
            "bos_token_id": self.says("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.says("tokenizer.ggml.eos_token_id"),
            "pad_token_id": self.says("tokenizer.ggml.padding_token_id"),
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "dtype": "float32",
        }

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Unpacked to float32: exactly the numbers that the file stands for."""
        from gguf import dequantize

        heads = {
            "attn_q": self.says("llama.attention.head_count"),
            "attn_k": self.says("llama.attention.head_count_kv"),
        }
        for tensor in self._reader.tensors:
            *block, name, _ = tensor.name.split(".")
            values = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
            if name in heads:
                values = _halves(values, heads[name])
            prefix = f"model.layers.{block[1]}." if block else ""
            yield f"{prefix}{NAMES[name]}.weight", np.ascontiguousarray(values)

    def tokenizer(self) -> Tokenizer:
        """Byte-level BPE whose numbers are cut into digits, with the file's control tokens."""
        tokens, kinds = self.says("tokenizer.ggml.tokens"), self.says("tokenizer.ggml.token_type")
        merges = [tuple(merge.split(" ")) for merge in self.says("tokenizer.ggml.merges")]
        engine = Tokenizer(models.BPE(vocab={token: id for id, token in enumerate(tokens)}, merges=merges))
        engine.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        engine.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
        engine.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
        return engine

    def tokenizer_settings(self) -> dict[str, Any]:
        """As tokenizer_config.json has it."""
        tokens = self.says("tokenizer.ggml.tokens")
        named = {
            f"{name}_token": tokens[id]
            for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
            if (id := self.says(f"tokenizer.ggml.{key}_token_id")) is not None
        }
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": self.says("llama.context_length"),
            **named,
            "chat_template": self.says("tokenizer.chat_template"),
        }


def _halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rotary pairs stand side by side in the file; in Hugging Face's form they are a head's first and second half."""
    width = rows.shape[0] // heads
    return rows.reshape(heads, width // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)
