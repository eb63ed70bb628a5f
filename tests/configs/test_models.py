"""Which parts a model has is chosen by `model`; everything else follows from that, and is refused where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import hf_folder
from vlm.build import compose
from vlm.contracts.errors import ConfigError
from vlm.contracts.parts import logical

TWO_TOWERS = ["model=two_tower", "text=tower_nano", "phase=contrastive", "phase.max_steps=1"]


def refusals(*overrides: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    return {problem.key: problem.message for problem in caught.value.problems}


def test_nodes_that_a_model_does_not_have_are_null():
    config = compose(TWO_TOWERS).config
    assert [config[name] for name in ("connector", "llm", "fusion")] == [None, None, None]
    assert config["text"]["width"] == 128
    assert compose(["experiment=purevlm"]).config["text"] is None


@pytest.mark.parametrize(
    ("words", "key", "message"),
    [
        (["experiment=purevlm", "model=two_tower", "phase=contrastive"], "text", "choose one with text=NAME"),
        (["experiment=purevlm", "text=tower_nano"], "text", "model=VLM has no text"),
        ([*TWO_TOWERS, "llm=gpt2_nano"], "llm", "model=TwoTower has no llm"),
        ([*TWO_TOWERS, "llm.width=8"], "llm.width", "model=TwoTower has no llm"),
        ([*TWO_TOWERS, "phase=sft"], "phase", "it trains models with the part llm, and this one has encoder, text"),
        (["experiment=purevlm", "phase=contrastive"], "phase", "it trains models with the part text"),
        (
            ["llm=mistral_nano", "adapter=dpo_r16", "phase=dpo", "phase.max_steps=1"],
            "init_from",
            "starts from a tuned llm, and nothing gives one; add init_from=RUN",
        ),
        (["experiment=purevlm", "hardware.memory_gb=0"], "hardware.memory_gb", "must be a number > 0 or null"),
        ([*TWO_TOWERS, "weights.llm=runs/x"], "weights.llm", "unknown key; keys here: encoder, text, joint"),
        (["experiment=purevlm", "weights.adapter=runs/x"], "weights.adapter", "choose them with adapter=NAME"),
        (["experiment=purevlm", "+phase.trainable.adapter.sft=1e-4"], "phase.trainable.adapter", "no adapters"),
    ],
)
def test_what_does_not_belong_to_a_model_is_refused_by_its_key(words: list[str], key: str, message: str):
    assert message in refusals(*words)[key]


def test_what_is_stored_in_four_bits_trains_through_an_adapter_alone(tmp_path: Path):
    words = [
        "encoder=vit_nano", "connector=linear", "llm=hf_causal", "llm.quantize=nf4", "adapter=lora_r64", "phase.max_steps=1",
        f"llm.path={hf_folder.whole(tmp_path, max_position_embeddings=4096)}", "+phase.trainable.adapter=1e-4",
    ]  # fmt: skip
    (found,) = refusals(*words, "phase.trainable.llm=1e-5").items()
    assert found[0] == "phase.trainable.llm"
    assert "quantized and cannot train; set it to null, and train an adapter" in found[1]
    assert compose([*words, "phase.trainable.llm=null"]).config["llm"]["quantize"] == "nf4"


def test_preference_training_starts_from_a_tuned_model_however_it_is_given():
    words = [
        "llm=mistral_nano",
        "encoder=keural_nano",
        "connector=level_aware",
        "adapter=dpo_r16",
        "phase=dpo",
        "phase.max_steps=1",
    ]
    assert list(refusals(*words)) == ["init_from"]
    for given in ("init_from=runs/sft", "+weights.llm=runs/sft"):
        assert compose([*words, given]).config["llm"]["adapters"].keys() == {"dpo"}


def test_a_folder_that_is_made_from_another_key_and_read_by_two_parts_is_missed_once(tmp_path):
    found = refusals("experiment=keural_smollm2_alignment", f"paths.data={tmp_path}")
    assert list(found) == ["llm.path"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (
            "llm.model.layers.0.mlp.up_proj.lora_A.sft.weight",
            "adapter.sft.llm.model.layers.0.mlp.up_proj.lora_A.weight",
        ),
        ("llm.model.layers.0.mlp.up_proj.lora_dropout.sft", "adapter.sft.llm.model.layers.0.mlp.up_proj.lora_dropout"),
        ("llm.model.layers.0.mlp.up_proj.base_layer.weight", "llm.model.layers.0.mlp.up_proj.weight"),
        ("encoder.blocks.1.qkv.weight", "encoder.blocks.1.qkv.weight"),
    ],
)
def test_adapters_are_a_part_of_their_own_and_layers_keep_their_names(name: str, meant: str):
    assert logical(name) == meant
