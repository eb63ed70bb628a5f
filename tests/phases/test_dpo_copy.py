"""Preference training of a whole model, held by a frozen copy of its first weights."""

from __future__ import annotations

import math

import pytest
import torch

from tests import hf_folder
from tests.models.stacked import with_pictures
from tests.phases.test_dpo import attached, equipped, loaded, phase_of, run
from vlm.contracts.errors import ConfigError, RunError
from vlm.models.llms.hf_causal import HFCausal
from vlm.models.vlm import VLM

WHOLE = ("connector", "llm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return hf_folder.whole(tmp_path_factory.mktemp("llama"))


def model_of(folder) -> VLM:
    llm = HFCausal(str(folder))
    llm.load_pretrained()
    return equipped(with_pictures(llm), folder)


def whole(model: VLM, rate: float = 1e-3, **changes):
    return phase_of(model, trainable=dict.fromkeys(WHOLE, rate), reference="copy", **changes)


@pytest.mark.parametrize("name", ["sigmoid", "mdpo"])
def test_a_run_begins_at_two_equal_models_and_learns_while_the_copy_stands_still(folder, name):
    model = model_of(folder)
    phase = whole(model, name=name)
    batch = phase.ready(loaded(model, range(4)))
    with torch.no_grad():
        first = model(batch).logp
    run(phase, steps=1)
    assert phase.take_metrics()["train/preference"] == pytest.approx(math.log(2) * {"mdpo": 3}.get(name, 1), abs=1e-4)
    run(phase, steps=8)
    assert phase.take_metrics()["train/reward_margin"] > 0
    with torch.no_grad():
        both = phase._both(batch)
    assert torch.equal(both.reference, first)
    assert not torch.equal(both.logp, first)


def test_the_copy_is_no_part_of_what_is_trained_or_saved(folder):
    model = model_of(folder)
    phase = whole(model)
    names = {name for name, _ in phase.named_parameters()}
    assert names == {f"model.{name}" for name, _ in model.named_parameters()}
    assert not any(parameter.requires_grad for parameter in phase.still[0].parameters())
    assert phase.still[0].processor is model.processor


def test_both_kinds_of_reference_say_the_same_of_the_same_weights(folder):
    model = model_of(folder)
    phase = attached(whole(model))
    batch = phase.ready(loaded(model, range(4)))
    loss = phase.objective(batch)
    loss.total.backward()
    assert (loss.total / loss.count).item() == pytest.approx(math.log(2), abs=1e-6)
    assert all(p.grad is not None for n, p in model.named_parameters() if n.startswith("llm."))


def test_at_a_rate_of_fvlm_nearly_all_weights_move_within_ten_steps_in_float32_and_few_in_bfloat16(folder):
    """A bfloat16 weight above about 512 times the rate swallows the step; masters in float32 do not."""

    def moved(model: VLM) -> float:
        before = {name: p.detach().clone() for name, p in model.llm.named_parameters()}
        run(whole(model, rate=5e-7), steps=10, validate=False)
        weights = dict(model.llm.named_parameters())
        matrices = [name for name in before if before[name].ndim == 2 and "embed" not in name and "lm_head" not in name]
        changed = sum(int((weights[name] != before[name]).sum()) for name in matrices)
        return changed / sum(before[name].numel() for name in matrices)

    assert moved(model_of(folder)) > 0.95
    assert moved(model_of(folder).to(torch.bfloat16)) < 0.3


def test_a_part_that_speaks_otherwise_in_training_is_found_before_the_first_step(folder):
    """The encoder here has BatchNorm, whose batch statistics are not the moving ones."""
    model = model_of(folder)
    with pytest.raises(RunError, match="freeze parts with BatchNorm"):
        run(phase_of(model, trainable={"encoder": 1e-3, "llm": 1e-3}, reference="copy"), steps=1)


def test_the_choice_is_named_where_a_model_has_no_adapter(folder):
    with pytest.raises(ConfigError, match=r"phase\.reference=copy"):
        phase_of(model_of(folder))
