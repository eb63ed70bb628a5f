"""Rates, groups and clipping as the recipes publish them."""

from __future__ import annotations

import itertools

import pytest
import torch

import vlm
from vlm.contracts.errors import ConfigError
from vlm.contracts.recipe import OptimizerSettings, ScheduleSettings
from vlm.training.optim import clip, make_optimizer, make_schedule, rate_factor
from vlm.training.trainable import Trainable


def settings(**changes) -> OptimizerSettings:
    base = {"name": "adamw", "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.01, "clip_norm": None}
    return OptimizerSettings(**base | changes)


def test_the_captioner_falls_on_a_cosine_to_a_tenth():
    """SupraVL-Nano: 3e-5 + (3e-4 - 3e-5) (1 + cos(pi s / S)) / 2; at half time 1.65e-4."""
    schedule = ScheduleSettings("cosine", warmup=0.0, floor=0.1)
    rates = [3e-4 * rate_factor(step, 7035, schedule) for step in (0, 3517.5, 7035)]  # type: ignore[arg-type]
    assert rates == pytest.approx([3e-4, 1.65e-4, 3e-5])


def test_the_digit_reader_falls_on_a_line_to_zero():
    """purevlm: 3e-3 (1 - step / 7000)."""
    schedule = ScheduleSettings("linear", warmup=0.0, floor=0.0)
    for step in (0, 1, 3500, 6999):
        assert rate_factor(step, 7000, schedule) == pytest.approx(1 - step / 7000)


def test_a_warm_up_rises_linearly_and_then_hands_over():
    schedule = ScheduleSettings("cosine", warmup=0.1, floor=0.0)
    factors = [rate_factor(step, 100, schedule) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1.0
    assert all(later < sooner for sooner, later in itertools.pairwise(factors[10:]))


def test_rates_converge_each_from_its_own_peak_to_its_own_end():
    """fVLM's first stage: one formula for parts that fall and parts that rise."""
    model = vlm.build_model(["experiment=supravl_nano"])
    optimizer = make_optimizer(model, Trainable(model, {"connector": 1e-3, "encoder": 1e-5, "llm": 1e-4}), settings())
    schedule = ScheduleSettings("cosine", warmup=0.5, floor=0.1, ends={"connector": 3e-5, "encoder": 3e-5})
    make = make_schedule(optimizer, 200, schedule)
    seen = []
    for _ in range(201):
        seen.append({group["path"]: group["lr"] for group in optimizer.param_groups})
        optimizer.step()
        make.step()
    assert seen[49] == pytest.approx({"connector": 5e-4, "encoder": 5e-6, "llm": 5e-5})
    assert seen[100] == pytest.approx({"connector": 1e-3, "encoder": 1e-5, "llm": 1e-4})
    assert seen[150] == pytest.approx({"connector": 5.15e-4, "encoder": 2e-5, "llm": 5.5e-5})
    assert seen[200] == pytest.approx({"connector": 3e-5, "encoder": 3e-5, "llm": 1e-5})


def test_an_end_is_given_to_a_path_that_has_a_rate():
    words = ["experiment=supravl_nano", "+phase.schedule.ends={connector: 1.0e-5, text: 1.0e-5, llm: -1}"]
    with pytest.raises(ConfigError) as caught:
        vlm.build_model(words)
    assert [problem.key for problem in caught.value.problems] == ["phase.schedule.ends.text", "phase.schedule.ends.llm"]


def test_weight_decay_takes_everything_where_a_recipe_says_so():
    model = vlm.build_model(["experiment=supravl_nano"])
    optimizer = make_optimizer(model, Trainable(model, {"connector": 1e-3}), settings(decay_all=True))
    assert [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups] == [(2, 0.01)]


def test_weight_decay_spares_vectors():
    model = vlm.build_model(["experiment=supravl_nano"])
    optimizer = make_optimizer(model, Trainable(model, {"connector": 1e-3, "llm": 1e-4}), settings())
    groups = {(group["path"], group["weight_decay"]): group for group in optimizer.param_groups}
    assert set(groups) == {("connector", 0.01), ("connector", 0.0), ("llm", 0.01), ("llm", 0.0)}
    assert all(p.ndim >= 2 for (_, decay), group in groups.items() if decay for p in group["params"])
    assert {group["lr"] for (path, _), group in groups.items() if path == "llm"} == {1e-4}
    counted = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert counted == sum(p.numel() for part in (model.connector, model.llm) for p in part.parameters())


def with_gradients(model, norm: float) -> dict[str, torch.Tensor]:
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
        parameter.grad *= norm / parameter.grad.norm()
    return {name: p.grad for name, p in model.named_parameters()}


def test_each_tensor_of_a_part_is_clipped_first_and_then_all_together():
    """purevlm: own norm of each encoder tensor at most 1, then the norm over all at most 5."""
    model = vlm.build_model(["experiment=purevlm"])
    gradients = with_gradients(model, 2.0)
    total = clip(model, settings(clip_norm=5.0, clip_each={"encoder": 1.0}))
    assert total.item() == pytest.approx((11 * 1.0**2 + 11 * 2.0**2) ** 0.5, rel=1e-5)
    factor = 5.0 / total.item()
    assert gradients["encoder.bae1_l"].norm().item() == pytest.approx(1.0 * factor, rel=1e-5)
    assert gradients["llm.wte"].norm().item() == pytest.approx(2.0 * factor, rel=1e-5)


def test_gradients_below_their_limits_stay_as_they_are():
    model = vlm.build_model(["experiment=purevlm"])
    gradients = with_gradients(model, 0.5)
    before = {name: gradient.clone() for name, gradient in gradients.items()}
    clip(model, settings(clip_norm=5.0, clip_each={"encoder": 1.0}))
    assert all(torch.equal(before[name], gradients[name]) for name in before)
