"""A stack of low-rank adapters around a decoder: what it changes, what it leaves alone, and what it adds up to."""

from __future__ import annotations

import json

import pytest
import torch

import vlm
from tests.hf_folder import CHATML, write_model, write_tokenizer
from vlm.contracts.errors import ConfigError, InputError, Mismatch
from vlm.contracts.recipe import LoraSettings
from vlm.models.llms.adapters import adapter_tensors, merge_adapters
from vlm.models.llms.hf_causal import HFCausal
from vlm.models.recompute import recompute
from vlm.training.tensors import own_tensors
from vlm.training.trainable import Trainable

IDS = torch.randint(3, 440, (2, 11), generator=torch.Generator().manual_seed(0))
PLACES = torch.arange(11).expand(2, -1)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STACK = {"sft": LoraSettings(4, 8.0, 0.0, ALL), "dpo": LoraSettings(2, 4.0, 0.0, ["q_proj", "down_proj"])}
MISTRAL = {
    "model_type": "mistral", "vocab_size": 32768, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 32768, "rope_theta": 1000000.0, "rms_norm_eps": 1e-05, "sliding_window": None,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    write_model(tmp_path / "base", "mistral")
    write_tokenizer(tmp_path / "base", CHATML)
    return tmp_path / "base"


def stacked(folder, adapters=STACK) -> HFCausal:
    """With adapters as far from zero as trained ones."""
    llm = HFCausal(str(folder), None, adapters).eval()
    llm.load_pretrained()
    torch.manual_seed(1)
    for name in adapters:
        for tensor in adapter_tensors(llm, name).values():
            tensor.normal_(std=0.1)
    return llm


def logits(llm: HFCausal) -> torch.Tensor:
    return llm.logits(llm(llm.embed(IDS), PLACES))


@pytest.mark.parametrize(
    ("rank", "targets", "count"),
    [(64, ALL, 167_772_160), (16, ALL, 41_943_040), (64, ["q_proj", "v_proj"], 27_262_976)],
)
def test_adapters_of_the_published_ranks_have_the_published_numbers_of_parameters(tmp_path, rank, targets, count):
    """Keural: r=64 and r=16 on Mistral-7B, whose own count is 7,248,023,552; nothing of it takes memory here."""
    (tmp_path / "config.json").write_text(json.dumps(MISTRAL))
    with torch.device("meta"):
        llm = HFCausal(str(tmp_path), None, {"sft": LoraSettings(rank, 2.0 * rank, 0.05, targets)})
    assert sum(tensor.numel() for tensor in adapter_tensors(llm, "sft").values()) == count
    assert sum(tensor.numel() for tensor in own_tensors(llm).values()) == 7_248_023_552


@torch.no_grad()
def test_new_adapters_change_nothing_and_the_same_seed_draws_the_same(folder):
    plain = HFCausal(str(folder)).eval()
    plain.load_pretrained()
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        llm = HFCausal(str(folder), None, STACK).eval()
        llm.load_pretrained()
        assert torch.equal(logits(llm), logits(plain))
        drawn.append({name: tensor.clone() for name, tensor in adapter_tensors(llm, "sft").items()})
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert any(tensor.any() for tensor in drawn[0].values())


def test_below_is_the_model_without_its_uppermost_adapter_and_leaves_no_trace(folder):
    llm = stacked(folder)
    Trainable(torch.nn.ModuleDict({"llm": llm}), {"adapter": {"dpo": 1e-3}})
    flags = [parameter.requires_grad for parameter in llm.parameters()]
    with torch.no_grad():
        before = logits(llm)
        with llm.below():
            reference = logits(llm)
        assert torch.equal(logits(llm), before)
        for tensor in (adapter_tensors(llm, "dpo")).values():
            tensor.zero_()
        assert torch.equal(logits(llm), reference)
    assert (before - reference).abs().max() > 1e-2
    assert [parameter.requires_grad for parameter in llm.parameters()] == flags
    assert llm.adapters == ("sft", "dpo")


def test_below_gives_everything_back_also_after_an_error(folder):
    llm = stacked(folder)
    before = logits(llm)
    with pytest.raises(ZeroDivisionError), llm.below():
        raise ZeroDivisionError
    assert torch.equal(logits(llm), before)
    assert all(parameter.requires_grad for parameter in llm.parameters())


def test_a_single_adapter_has_the_language_model_below_it_and_none_is_refused(folder):
    llm = stacked(folder, {"dpo": STACK["dpo"]})
    plain = stacked(folder, {})
    with torch.no_grad(), llm.below():
        assert torch.equal(logits(llm), logits(plain))
    with pytest.raises(InputError, match=r"no adapter.*adapter=dpo_r16"), plain.below():
        pass


def test_training_the_upper_adapter_moves_it_and_nothing_else_with_recomputation_or_not(folder):
    gradients = []
    for again in (False, True):
        llm = stacked(folder).train()
        trainable = Trainable(torch.nn.ModuleDict({"llm": llm}), {"adapter": {"dpo": 1e-2}})
        assert all(".dpo." in name for names in trainable.groups.values() for name in names)
        if again:
            recompute(llm)
        sft = {name: tensor.clone() for name, tensor in adapter_tensors(llm, "sft").items()}
        own = {name: tensor.clone() for name, tensor in own_tensors(llm).items()}
        embeds = llm.embed(IDS).requires_grad_()
        with torch.no_grad(), llm.below():
            llm(embeds, PLACES)
        hidden = llm(embeds, PLACES)
        llm.logp(hidden[:, :-1], IDS[:, 1:]).sum().backward()
        assert embeds.grad is not None  # what a connector learns from
        gradients.append([p.grad for p in llm.parameters() if p.requires_grad] + [embeds.grad])
        torch.optim.SGD([p for p in llm.parameters() if p.requires_grad], lr=0.1).step()
        assert all(torch.equal(tensor, adapter_tensors(llm, "sft")[name]) for name, tensor in sft.items())
        assert all(torch.equal(tensor, own_tensors(llm)[name]) for name, tensor in own.items())
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_a_parts_own_tensors_are_called_as_in_its_folder_with_adapters_or_without(folder):
    assert own_tensors(stacked(folder)).keys() == own_tensors(stacked(folder, {})).keys()


@torch.no_grad()
def test_merged_weights_say_what_the_stack_says(folder):
    llm = stacked(folder)
    model = torch.nn.Module()
    model.llm = llm
    merged = merge_adapters(model)
    plain = stacked(folder, {})
    for name, tensor in merged.items():
        plain.put(name, tensor)
    ours, wanted = logits(plain), logits(llm)
    assert (ours - wanted).abs().max() <= 1e-6 * wanted.abs().max()
    assert merged.keys() == own_tensors(plain).keys()


def test_layers_that_a_family_does_not_have_are_named_before_anything_is_built(folder):
    with pytest.raises(Mismatch, match=r"sft.targets names qkv_proj; the layers of mistral are q_proj, k_proj"):
        HFCausal.describe(str(folder), None, {"sft": {"targets": ["q_proj", "qkv_proj"]}})
    words = ["llm=mistral_nano", "adapter=lora_r64", "data=mnist", "phase.max_steps=1"]
    with pytest.raises(ConfigError) as refused:
        vlm.build_model([*words, "llm.family=phi3"])
    assert [problem.key for problem in refused.value.problems] == ["llm.adapters"]
    with pytest.raises(ConfigError, match=r"llm\.adapters\.sft\.rank"):
        vlm.build_model([*words, "llm.adapters.sft.rank=0"])


def test_every_choice_of_adapters_composes_and_a_frozen_one_stays_frozen():
    model = vlm.build_model(
        [
            "llm=mistral_nano",
            "adapter=sft_dpo",
            "data=mnist",
            "phase.max_steps=1",
            "phase.trainable={encoder: null, connector: null, llm: null, adapter: {dpo: 1.0e-3}}",
        ]
    )
    assert model.llm.adapters == ("sft", "dpo")
    assert {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad} == {"dpo"}
