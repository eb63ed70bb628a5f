"""Recomputed blocks: the same model, less memory."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaModel
from transformers.cache_utils import DynamicCache

from vlm.contracts.vision import ViewSpec
from vlm.models.encoders.cnn import CNN
from vlm.models.llms.gpt2 import GPT2
from vlm.models.llms.tiny_gpt import TinyGPT
from vlm.models.recompute import blocks, recompute


def gpt2(dropout=0.0):
    torch.manual_seed(0)
    return GPT2(50, 16, layers=3, heads=2, mlp=32, max_positions=20, dropout=dropout)


def llama():
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    return LlamaModel(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2))


def gradients(model, run):
    torch.manual_seed(5)
    model.zero_grad()
    result = run(model)
    result.square().sum().backward()
    return [result.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def through_decoder(model):
    embeds = torch.linspace(-1, 1, 2 * 9 * 16).view(2, 9, 16)
    return model(embeds, torch.arange(9).expand(2, 9))


def count_calls(block, calls):
    block.register_forward_hook(lambda *_: calls.append("block"))
    inner = next(module for module in block.modules() if isinstance(module, torch.nn.LayerNorm))
    inner.register_forward_hook(lambda *_: calls.append("inside"))


def test_blocks_are_the_members_of_the_outermost_lists():
    model = gpt2()
    assert blocks(model) == list(model.blocks)
    assert blocks(torch.nn.ModuleDict({"llm": model, "other": torch.nn.Linear(2, 2)})) == list(model.blocks)
    tiny = TinyGPT(50, 16, 2, 2, 32, 20, "tensor", "exact")
    assert blocks(tiny) == list(tiny.layers)
    decoder = llama()
    assert blocks(decoder) == list(decoder.layers)
    cnn = CNN(ViewSpec(3, 32, 32), [4, 8], 2)
    assert blocks(cnn) == list(cnn.stages)
    assert blocks(torch.nn.Linear(2, 2)) == []


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("training", [True, False])
def test_values_and_gradients_stay_to_the_bit_dropout_too(dropout, training):
    model = gpt2(dropout).train(training)
    before = gradients(model, through_decoder)
    recompute(model)
    for one, other in zip(before, gradients(model, through_decoder), strict=True):
        assert torch.equal(one, other)


def test_a_hugging_face_decoder_is_recomputed_like_ours():
    model = llama().train()

    def run(decoder):
        return decoder(
            inputs_embeds=torch.linspace(-1, 1, 2 * 9 * 16).view(2, 9, 16), use_cache=False
        ).last_hidden_state

    before = gradients(model, run)
    recompute(model)
    for one, other in zip(before, gradients(model, run), strict=True):
        assert torch.equal(one, other)


def test_a_block_runs_twice_where_gradients_are_recorded_and_once_elsewhere():
    model, calls = gpt2(), []
    recompute(model)
    count_calls(model.blocks[1], calls)
    through_decoder(model).sum().backward()
    assert calls == ["inside", "block", "inside"]  # hooks of the block itself, those of sharding say, run once
    calls.clear()
    with torch.no_grad():
        through_decoder(model)
    assert calls == ["inside", "block"]


def test_a_frozen_decoder_in_eval_mode_is_recomputed_for_the_parts_below_it():
    model, calls = gpt2().eval().requires_grad_(False), []
    recompute(model)
    count_calls(model.blocks[1], calls)
    embeds = torch.randn(1, 4, 16, requires_grad=True)
    model(embeds, torch.arange(4).unsqueeze(0)).sum().backward()
    assert calls == ["inside", "block", "inside"]


def test_a_cache_is_filled_once():
    model = gpt2().train()
    embeds, positions = torch.randn(1, 4, 16), torch.arange(4).unsqueeze(0)
    whole = model(embeds, positions)
    recompute(model)
    cache = DynamicCache()
    model(embeds[:, :3], positions[:, :3], cache=cache)
    last = model(embeds[:, 3:], positions[:, 3:], cache=cache)
    last.sum().backward()
    assert cache.get_seq_length() == 4
    torch.testing.assert_close(last, whole[:, 3:])


def test_names_and_copies_stay_those_of_the_model():
    model = gpt2()
    names = list(model.state_dict())
    recompute(model)
    assert list(model.state_dict()) == names
    twin = copy.deepcopy(model)
    before = through_decoder(model).detach()
    with torch.no_grad():
        twin.blocks[0].fc1.weight.zero_()
    assert torch.equal(through_decoder(model), before)
    assert not torch.equal(through_decoder(twin), before)


def test_batch_statistics_move_once_a_step():
    torch.manual_seed(0)
    model = CNN(ViewSpec(3, 32, 32), [4, 8], 2).train()
    recompute(model)
    model(torch.randn(2, 3, 32, 32)).tokens.sum().backward()
    assert {int(b) for name, b in model.named_buffers() if name.endswith("num_batches_tracked")} == {1}
