"""Decoders of a family by their sizes alone."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from transformers.cache_utils import DynamicCache

import vlm
from vlm.contracts.errors import ConfigError
from vlm.models.llms.decoder import FAMILIES
from vlm.models.llms.sized import Family, Sized
from vlm.training.weights import save_model

IDS = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))
PLACES = torch.arange(9).expand(2, -1)
WORDS = ["llm=mistral_nano", "data=mnist", "phase.max_steps=1"]


def small(family: str, tie: bool = False) -> Sized:
    torch.manual_seed(0)
    return Sized(family, 96, 32, 2, 4, 2, 48, 64, 10000.0, tie)


def test_the_families_of_a_configuration_are_those_that_the_code_knows():
    assert set(get_args(Family)) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_and_goes_on_from_a_cache(family):
    llm = small(family)
    hidden = llm(llm.embed(IDS), PLACES)
    llm.logp(hidden[:, :-1], IDS[:, 1:]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in llm.parameters())
    cache = DynamicCache()
    with torch.no_grad():
        steps = [llm(llm.embed(IDS[:, part]), PLACES[:, part], None, cache) for part in (slice(5), slice(5, 9))]
    torch.testing.assert_close(torch.cat(steps, 1), hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tie", [True, False])
def test_a_tied_head_is_the_embedding_table(tie):
    llm = small("llama", tie)
    assert (llm.lm_head.weight is llm.model.embed_tokens.weight) == tie
    assert (
        sum(p.numel() for p in llm.parameters())
        == 96 * 32 * (1 if tie else 2) + 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48 + 2 * 32) + 32
    )


def test_weights_start_as_small_random_numbers_and_follow_the_seed():
    one, two = small("mistral").state_dict(), small("mistral").state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one["lm_head.weight"].std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(one["model.norm.weight"], torch.ones(32))


def test_the_small_mistral_has_nine_hundred_thousand_parameters_and_comes_back_from_its_folder(tmp_path):
    model = vlm.build_model(WORDS)
    assert vlm.parameter_report(model)["parts"]["llm"] == 889_728
    model.processor.tokenizer.fit(["one", "two"])
    save_model(model, tmp_path / "model")
    again = vlm.load_model(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(again.llm(again.llm.embed(IDS), PLACES), model.llm(model.llm.embed(IDS), PLACES))


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("llm.kv_heads=3", "llm.kv_heads"),
        ("llm.heads=3", "llm.heads"),
        ("llm.family=gemma2", "llm.family"),
        ("llm.width=132", "llm.heads"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(word, key):
    with pytest.raises(ConfigError) as refused:
        vlm.build_model([*WORDS, word])
    assert [problem.key for problem in refused.value.problems] == [key]
