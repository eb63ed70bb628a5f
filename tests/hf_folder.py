"""Small folders in Hugging Face's form: a model with random weights, a trained tokenizer, a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = ["what is on the table?", "a red kite and two books.", "how many? three, I think so", "Hello there, über!"] * 4

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TAGGED = (
    "{{ bos_token }}{% for message in messages %}\n"
    "    {% if message.role == 'assistant' %}\n"
    "{{ '<|im_start|>assistant\n' }}{% generation %}{{ message.content | trim }}<|im_end|>{% endgeneration %}{{ '\n' }}\n"
    "    {% else %}\n{{ '<|im_start|>' ~ message.role ~ '\n' ~ message.content ~ '<|im_end|>\n' }}\n    {% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INST = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = 1 %}{% set system = messages[0].content ~ '\n' %}"
    "{% else %}{% set first = 0 %}{% set system = '' %}{% endif %}{% for message in messages[first:] %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if message.role == 'user' %}[INST] {{ (system if loop.first else '') ~ message.content }} [/INST]"
    "{% else %} {{ message.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
PARTS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REWRITING = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' and loop.last %}(thought)\n{% endif %}{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ENDLESS = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
TEMPLATES = {"chatml": CHATML, "tagged": TAGGED, "inst": INST, "parts": PARTS}


def byte_level() -> Tokenizer:
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    engine.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    engine.post_processor = processors.ByteLevel(trim_offsets=True)  # type: ignore[assignment]
    _train(engine, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), size=300)
    return engine


def sentence_pieces() -> Tokenizer:
    """As older Llama tokenizers: a space becomes a letter, one stands before every text, unknown characters are bytes."""
    engine = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    engine.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    engine.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _train(engine, initial_alphabet=[], size=420, extra=["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))])
    return engine


def _train(engine: Tokenizer, initial_alphabet: list[str], size: int, extra: list[str] | None = None) -> None:
    special = [AddedToken(name, special=True) for name in ("<s>", "</s>", "<|im_start|>", "<|im_end|>")]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*special, *(extra or [])],
        initial_alphabet=initial_alphabet,
        show_progress=False,
    )
    engine.train_from_iterator(TEXTS, trainer)
    if extra:  # bytes and the unknown are ordinary entries
        import json

        plain = json.loads(engine.to_str())
        plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] not in extra]
        engine.__setstate__(json.dumps(plain).encode())


def write_tokenizer(folder: Path, template: str | None = CHATML, engine: Tokenizer | None = None) -> Any:
    """Returns: the same tokenizer as transformers has it."""
    from transformers import PreTrainedTokenizerFast

    end = "<|im_end|>" if template is not None and "im_end" in template else "</s>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=engine or byte_level(), bos_token="<s>", eos_token=end, pad_token="</s>"
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


def whole(folder: Path, **changes: Any) -> Path:
    """Tokenizer, template and a llama in one folder. Returns: the folder."""
    write_tokenizer(folder)
    write_model(folder, **changes)
    return folder


def write_model(folder: Path, family: str = "llama", **changes: Any) -> Any:
    """Returns: the same model as transformers has it, in eval mode, with weights large enough to tell mistakes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": 448, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
    }  # fmt: skip
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(sizes | changes))).eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if parameter.ndim > 1 else torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(folder)
    return model
