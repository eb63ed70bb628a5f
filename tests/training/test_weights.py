"""Saved models whose language model stays where it is, adapters in PEFT's folders, and what a new run is given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import vlm
from tests.hf_folder import CHATML, write_model, write_tokenizer
from vlm.build import compose
from vlm.contracts.errors import InputError
from vlm.library import make
from vlm.models.llms.adapters import adapter_tensors
from vlm.training.given import embedding_rms, load_given, trained_adapters
from vlm.training.tensors import own_tensors
from vlm.training.trainable import Trainable
from vlm.training.weights import save_model

IDS = torch.randint(3, 440, (2, 11), generator=torch.Generator().manual_seed(0))
PLACES = torch.arange(11).expand(2, -1)


@pytest.fixture
def folder(tmp_path) -> Path:
    return base(tmp_path / "base")


def base(folder: Path, **changes) -> Path:
    write_model(folder, "mistral", **changes)
    write_tokenizer(folder, CHATML)
    return folder


def words(folder: Path, *more: str) -> list[str]:
    small = ["llm.adapters.sft.rank=4", "llm.adapters.sft.alpha=8"] if "adapter=dpo_r16" not in more else []
    common = ["encoder=none", "connector=none", "llm=hf_causal", f"llm.path={folder}", "llm.template.max_tokens=64"]
    return [*common, "adapter=lora_r64", *more, *small, "data=mnist", "phase.max_steps=1"]


def fresh(*composed: str):
    """As a run begins: without weights."""
    torch.manual_seed(0)
    return make(compose(list(composed)).config)


def aligned(folder: Path, *more: str):
    """A model with a trained adapter, its base frozen."""
    model = fresh(*words(folder, *more))
    load_given(model, {}, None, set(model.llm.adapters))
    Trainable(model, {"adapter": 1e-3})
    for name in model.llm.adapters:
        for tensor in adapter_tensors(model.llm, name).values():
            tensor.normal_(std=0.1)
    return model.eval()


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.llm.logits(model.llm(model.llm.embed(IDS), PLACES))


@pytest.fixture
def saved(folder, tmp_path) -> Path:
    save_model(aligned(folder), tmp_path / "model")
    return tmp_path / "model"


def test_a_base_that_did_not_train_is_not_copied_and_the_model_comes_back_with_it(folder, tmp_path):
    model = aligned(folder)
    save_model(model, tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").rglob("*.safetensors")] == ["adapter_model.safetensors"]
    again = vlm.load_model(tmp_path / "model")
    assert torch.equal(logits(again), logits(model))
    save_model(again, tmp_path / "twice")
    assert torch.equal(logits(vlm.load_model(tmp_path / "twice")), logits(model))
    assert not (tmp_path / "twice" / "llm.safetensors").exists()


def test_a_base_that_trained_or_was_changed_is_saved_whole(folder, tmp_path):
    model = aligned(folder)
    Trainable(model, {"llm": {"model": {"embed_tokens": 1e-3}}})
    save_model(model, tmp_path / "trained")
    shutil.rmtree(folder)
    assert torch.equal(logits(vlm.load_model(tmp_path / "trained")), logits(model))
    base(folder)
    changed = aligned(folder)
    with torch.no_grad():
        changed.llm.model.norm.weight.mul_(1.5)
    save_model(changed, tmp_path / "changed")
    assert torch.equal(logits(vlm.load_model(tmp_path / "changed")), logits(changed))


def test_a_copy_of_the_base_in_half_precision_is_the_same_base(folder, saved):
    file = folder / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file)
    vlm.load_model(saved)


def test_a_base_that_is_gone_or_another_is_refused_until_its_place_is_given(folder, saved, tmp_path):
    wanted = logits(vlm.load_model(saved))
    folder.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"is not there; put it back, or write .* as base.path into .*config.json"):
        vlm.load_model(saved)
    config = json.loads((saved / "config.json").read_text())
    config["base"]["path"] = str(tmp_path / "moved")
    (saved / "config.json").write_text(json.dumps(config))
    assert torch.equal(logits(vlm.load_model(saved)), wanted)
    file = tmp_path / "moved" / "model.safetensors"
    save_file({name: tensor * 1.1 for name, tensor in load_file(file).items()}, file)
    with pytest.raises(InputError, match="holds other weights than the language model of"):
        vlm.load_model(saved)


def test_an_adapter_opens_in_peft_on_its_base(folder, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = aligned(folder, "adapter=sft_dpo", "llm.adapters.dpo.rank=2")
    save_model(model, tmp_path / "model")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(theirs, str(tmp_path / "model" / "adapters" / "sft"), adapter_name="sft").eval()
    with model.llm.below(), torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, logits(model), rtol=1e-5, atol=1e-5)
    theirs.load_adapter(str(tmp_path / "model" / "adapters" / "dpo"), adapter_name="dpo")
    theirs.base_model.set_adapter(["sft", "dpo"])
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, logits(model), rtol=1e-5, atol=1e-5)


def test_the_next_phase_takes_the_adapter_and_begins_another_above_it(folder, saved):
    before = vlm.load_model(saved)
    model = fresh(*words(folder, "adapter=sft_dpo"))
    load_given(model, {"adapter": str(saved)}, None, {"dpo"})
    assert torch.equal(logits(model.eval()), logits(before))
    again = fresh(*words(folder, "adapter=sft_dpo"))
    load_given(again, {}, str(saved), {"dpo"})
    assert torch.equal(logits(again.eval()), logits(before))


def test_an_adapter_that_would_do_nothing_is_refused(folder):
    with pytest.raises(InputError, match=r"llm.adapters.sft: it is neither given nor trained.*weights.adapter=RUN"):
        load_given(fresh(*words(folder, "adapter=sft_dpo")), {}, None, {"dpo"})


def test_an_adapter_that_would_be_lost_or_is_not_there_is_refused(folder, saved):
    with pytest.raises(InputError, match=r"has the adapter sft, which this model does not have.*would be lost"):
        load_given(fresh(*words(folder, "adapter=dpo_r16")), {}, str(saved), {"dpo"})
    with pytest.raises(InputError, match=r"has no adapter dpo \(it has sft\), and this run does not train it"):
        load_given(fresh(*words(folder, "adapter=sft_dpo")), {"adapter": str(saved)}, None, set())


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "llm.adapters.sft.rank=2",
            r"llm.adapters.sft has other sizes.*has shape \[4, 32\], the model needs \[2, 32\]",
        ),
        ("llm.adapters.sft.targets=[q_proj]", r"down_proj.lora_A.weight.* more are not part of the model"),
        ("llm.adapters.sft.alpha=4", r"llm.adapters.sft.alpha: 4 is given, but .* was trained with 8"),
    ],
)
def test_an_adapter_of_another_form_is_refused_by_name(folder, saved, word, message):
    model = fresh(*words(folder), word)
    with pytest.raises(InputError, match=message):
        load_given(model, {"adapter": str(saved)}, None, {"sft"})


def test_an_adapter_of_another_base_model_is_refused_by_shape_or_by_its_weights(saved, tmp_path):
    wider = base(tmp_path / "wider", hidden_size=64)
    with pytest.raises(
        InputError,
        match=r"was trained on .*base and does not fit.*another language model.*has shape \[4, 32\].*needs \[4, 64\]",
    ):
        load_given(fresh(*words(wider)), {"adapter": str(saved)}, None, {"sft"})
    other = base(tmp_path / "other")
    file = other / "model.safetensors"
    save_file({name: tensor * 1.1 for name, tensor in load_file(file).items()}, file)
    with pytest.raises(InputError, match=r"were trained on the language model in .*base, and this run has another one"):
        load_given(fresh(*words(other)), {"adapter": str(saved)}, None, {"sft"})
    with pytest.raises(InputError, match=r"llm.path: .*other holds other weights than .*base"):
        load_given(fresh(*words(other)), {}, str(saved), {"sft"})


SMALL = ["llm=mistral_nano", "data=mnist", "phase.max_steps=1"]


def test_a_language_model_of_ones_own_is_saved_whole_and_takes_adapters_later(tmp_path):
    model = vlm.build_model(SMALL)
    model.processor.tokenizer.fit(["one", "two"])
    save_model(model, tmp_path / "model")
    later = fresh(*SMALL, "adapter=dpo_r16")
    load_given(later, {}, str(tmp_path / "model"), {"dpo"})
    assert later.processor.tokenizer.ready
    assert all(torch.equal(tensor, own_tensors(model.llm)[name]) for name, tensor in own_tensors(later.llm).items())
    save_model(later, tmp_path / "later")
    stranger = fresh(*SMALL, "adapter=dpo_r16", "seed=1")
    stranger.llm.lm_head.weight.data.add_(1)
    with pytest.raises(InputError, match=r"has another one; give it with weights.llm=.*later too"):
        load_given(stranger, {"adapter": str(tmp_path / "later")}, None, {"dpo"})


def test_a_connector_without_weights_is_matched_to_the_embedding_table(folder):
    model = fresh(*words(folder, "encoder=cnn", "connector=linear"))
    heard: list[float] = []
    model.connector.match = heard.append
    load_given(model, {}, None, {"sft"})
    table = model.llm.model.embed_tokens.weight.detach()
    assert heard == [pytest.approx(float(table.square().mean().sqrt()), rel=1e-6)]
    assert heard == [embedding_rms(model.llm)]


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"llm": 1e-3}, set()),
        ({"adapter": 1e-3}, {"sft", "dpo"}),
        ({"adapter": {"dpo": 1e-3}}, {"dpo"}),
        ({"adapter": {"dpo": 1e-3, "sft": None}}, {"dpo"}),
        ({"adapter": {"dpo": {"llm": {"model": 1e-3}}}}, {"dpo"}),
    ],
)
def test_a_tree_of_rates_says_which_adapters_train(tree, names):
    assert trained_adapters(("sft", "dpo"), tree) == names


@pytest.mark.parametrize(("words", "key"), [(["weights.encoder"], "weights.encoder"), ([], "init_from")])
def test_weights_of_another_size_are_refused_with_a_few_tensors_the_key_and_the_keys_that_differ(tmp_path, words, key):
    wider = ["encoder=keural_nano", "encoder.width=192", "encoder.layers=3", "connector=linear", *SMALL]
    theirs = vlm.build_model(wider)
    theirs.processor.tokenizer.fit(["one", "two"])
    save_model(theirs, tmp_path / "wide" / "model")
    model = fresh("encoder=keural_nano", "connector=linear", *SMALL)
    given = {"encoder": str(tmp_path / "wide")} if words else {}
    with pytest.raises(InputError) as caught:
        load_given(model, given, None if words else str(tmp_path / "wide"), set())
    said = str(caught.value)
    assert said.startswith(f"{key}: {tmp_path / 'wide' / 'model' / 'encoder.safetensors'} does not fit the model: ")
    assert "blocks.0.grow.bias has shape [768], the model needs [384]" in said
    assert "and " in said
    assert "encoder.width=192 (96 here), encoder.layers=3 (2 here)" in said
    assert "views" not in said
    assert said.count("has shape") <= 5
    assert len(said) < 1200


def test_a_connector_that_does_not_fit_names_the_neighbour_that_made_it_so(tmp_path):
    theirs = vlm.build_model(["encoder=keural_nano", "encoder.width=192", "connector=level_aware", *SMALL])
    theirs.processor.tokenizer.fit(["one", "two"])
    save_model(theirs, tmp_path / "model")
    model = fresh("encoder=keural_nano", "connector=level_aware", *SMALL)
    with pytest.raises(InputError, match=r"weights.connector: .*encoder.width=192 \(96 here\)"):
        load_given(model, {"connector": str(tmp_path / "model")}, None, set())


def test_a_refused_adapter_is_told_by_a_few_tensors(saved, tmp_path):
    wider = base(tmp_path / "wider", hidden_size=64, intermediate_size=128)
    with pytest.raises(InputError, match=r"llm\.adapters\.sft.*; and \d+ more; name the language model") as caught:
        load_given(fresh(*words(wider)), {"adapter": str(saved)}, None, {"sft"})
    assert str(caught.value).count("has shape") == 5
