"""fVLM as published: its numbers of parameters, its rates at every step, its lengths, and the share of text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import vlm
from tests import hf_folder
from vlm.build import compose
from vlm.contracts.errors import ConfigError
from vlm.contracts.parts import paths
from vlm.contracts.recipe import ScheduleSettings
from vlm.data.order import quotas
from vlm.library import make
from vlm.training.optim import rate_factor
from vlm.training.trainable import Trainable

COMMON = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 49152, "tie_word_embeddings": True,
    "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 8192, "attention_bias": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
SMOLLM2 = {
    "1_7b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
             "num_key_value_heads": 32, "rope_theta": 130000},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3, "rope_theta": 100000},
}  # fmt: skip
COUNTS = {"1_7b": (1_735_304_320, 1_835_967_616, 1_871_360), "135m": (157_310_976, 185_622_528, 739_392)}
STAGES = ("alignment", "sft", "dpo")


@pytest.fixture(params=list(SMOLLM2))
def size(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def base(size: str, tmp_path: Path) -> Path:
    """The shapes of the real language model, and a small tokenizer."""
    hf_folder.write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(COMMON | SMOLLM2[size]))
    return tmp_path


def configured(size: str, stage: str, base: Path, *words: str) -> dict[str, Any]:
    return compose([f"experiment=fvlm_{size}_{stage}", f"llm.path={base}", "init_from=runs/before", *words]).config


def on_meta(config: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return make(config)


def test_it_has_the_published_numbers_of_parameters(size: str, base: Path):
    report = vlm.parameter_report(on_meta(configured(size, "alignment", base)))
    total, untied, connector = COUNTS[size]
    assert (report["total"], report["untied"]) == (total, untied)
    assert report["parts"]["encoder"] == 22_056_576
    # query_input_proj (147,456) and output_proj (147,840) are counted with the encoder there, with the connector here
    assert report["parts"]["connector"] == connector
    assert report["parts"]["fusion"] == 0


PEAKS = {  # recipe, size, stage -> peak rates of encoder, connector and language model, and last ones
    ("source", "1_7b", "alignment"): ((3e-6, 3e-4, 3e-6), (1e-5, 1e-5, 1e-5)),
    ("source", "135m", "alignment"): ((1e-5, 1e-3, 1e-5), (3e-5, 3e-5, 3e-5)),
    ("source", "1_7b", "sft"): ((1e-5,) * 3, (1e-6,) * 3),
    ("source", "135m", "sft"): ((3e-5,) * 3, (3e-6,) * 3),
    ("source", "1_7b", "dpo"): ((5e-7,) * 3, (5e-8,) * 3),
    ("source", "135m", "dpo"): ((1e-6,) * 3, (1e-7,) * 3),
    **{("card", size, "alignment"): ((1e-5, 1e-3, 1e-5), (3e-5,) * 3) for size in SMOLLM2},
    **{("card", size, "sft"): ((3e-5,) * 3, (3e-6,) * 3) for size in SMOLLM2},
    **{("card", size, "dpo"): ((5e-7,) * 3, (5e-8,) * 3) for size in SMOLLM2},
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("recipe", ["source", "card"])
def test_every_part_goes_from_its_published_rate_to_its_published_end(recipe: str, stage: str, size: str, base: Path):
    phase = configured(size, stage, base, f"recipe={recipe}")["phase"]
    schedule = ScheduleSettings(**phase["schedule"])
    steps, warmup = phase["max_steps"], 937 if stage != "dpo" else 259
    assert (steps, phase["global_batch"]) == (2593 if stage == "dpo" else 31250, 32)
    peaks, ends = PEAKS[recipe, size, stage]
    for part, peak, end in zip(("encoder", "connector", "llm"), peaks, ends, strict=True):
        own = paths(schedule.ends).get(part)
        floor = None if own is None else own / phase["trainable"][part]
        rates = [
            phase["trainable"][part] * rate_factor(at, steps, schedule, floor) for at in (warmup - 1, warmup, steps)
        ]
        assert rates == pytest.approx([peak, peak, end])


def test_the_recipe_of_the_size_itself_is_what_an_experiment_takes_unless_told(size: str, base: Path):
    for stage in STAGES:
        assert configured(size, stage, base) == configured(size, stage, base, "recipe=source")


def test_everything_decays_and_the_stages_have_the_published_lengths_and_targets(size: str, base: Path):
    found = {stage: configured(size, stage, base) for stage in STAGES}
    for config in found.values():
        assert config["phase"]["optimizer"] | {"clip_each": {}} == {
            "name": "adamw", "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "decay_all": True,
            "clip_norm": 1.0, "clip_each": {},
        }  # fmt: skip
        assert config["fusion"]["mode"] == "coarse_fine"
        assert config["encoder"]["views"]["frames"] == 64
    assert [found[stage]["llm"]["template"]["max_tokens"] for stage in STAGES] == [512, 1024, 1024]
    assert [found[stage]["encoder"]["views"]["still"] for stage in STAGES] == [1, 8, 8]
    assert [found[stage]["phase"]["targets"] for stage in STAGES[:2]] == ["all", "answers"]
    assert (found["dpo"]["phase"]["reference"], found["dpo"]["phase"]["loss"]["beta"]) == ("copy", 0.1)


def test_with_the_source_s_slip_output_proj_alone_learns_at_the_encoder_s_rate(size: str, base: Path):
    right = configured(size, "alignment", base)
    wrong = configured(size, "alignment", base, "recipe=source_slip")
    model = on_meta(wrong)
    trainable = Trainable(model, wrong["phase"]["trainable"])
    rates = {name: trainable.rates[path] for path, names in trainable.groups.items() for name in names}
    slipped = {"connector.tell.weight", "connector.tell.bias"}
    assert len(rates) == len(list(model.named_parameters()))
    for name, rate in rates.items():
        part = "encoder" if name in slipped else name.partition(".")[0]
        assert rate == right["phase"]["trainable"][part], name
    assert {path for path in paths(wrong["phase"]["schedule"]["ends"])} == set(trainable.rates)


def test_a_recipe_that_an_experiment_does_not_have_is_refused(base: Path):
    for words in (["experiment=purevlm", "recipe=card"], ["experiment=fvlm_135m_sft", "recipe=source_slip"]):
        with pytest.raises(ConfigError, match=rf"Could not find 'recipe/\w+/{words[0].partition('=')[2]}'"):
            compose([*words, *([f"llm.path={base}"] if "fvlm" in words[0] else [])])


@pytest.mark.parametrize("stage", ["alignment", "sft"])
def test_fourteen_of_a_hundred_samples_are_text_however_large_the_sets_are(stage: str, size: str, base: Path):
    train = configured(size, stage, base)["data"]["train"]
    names = list(train)
    rows = [1_043_917 if name == "smoltalk" else 100_000 * (number + 1) for number, name in enumerate(names)]
    places = quotas(
        rows, [use.get("weight", 1.0) for use in train.values()], [use.get("share") for use in train.values()]
    )
    assert places[names.index("smoltalk")] / sum(places) == pytest.approx(0.14, abs=1e-4)
    assert all(places)
