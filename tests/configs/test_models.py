"""Which parts a model has is chosen by `model`; everything else follows from that, and is refused where it does not."""

from __future__ import annotations

import pytest

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
        ([*TWO_TOWERS, "weights.llm=runs/x"], "weights.llm", "unknown key; keys here: encoder, text, joint"),
        (["experiment=purevlm", "weights.adapter=runs/x"], "weights.adapter", "choose them with adapter=NAME"),
        (["experiment=purevlm", "+phase.trainable.adapter.sft=1e-4"], "phase.trainable.adapter", "no adapters"),
    ],
)
def test_what_does_not_belong_to_a_model_is_refused_by_its_key(words: list[str], key: str, message: str):
    assert message in refusals(*words)[key]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("llm.model.layers.0.mlp.up_proj.lora_A.sft.weight", "adapter.sft.llm.model.layers.0.mlp.up_proj.lora_A.weight"),
        ("llm.model.layers.0.mlp.up_proj.lora_dropout.sft", "adapter.sft.llm.model.layers.0.mlp.up_proj.lora_dropout"),
        ("llm.model.layers.0.mlp.up_proj.base_layer.weight", "llm.model.layers.0.mlp.up_proj.weight"),
        ("encoder.blocks.1.qkv.weight", "encoder.blocks.1.qkv.weight"),
    ],
)
def test_adapters_are_a_part_of_their_own_and_layers_keep_their_names(name: str, meant: str):
    assert logical(name) == meant
