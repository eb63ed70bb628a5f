"""Keural's projector."""

from __future__ import annotations

import pytest
import torch

from vlm.contracts.errors import InputError
from vlm.contracts.vision import EncoderOutput, FixedCount, VisionSpec
from vlm.models.connectors.level_aware import LevelAware


def connector(width=12, inner=8, levels=True, source_levels=3, hidden=16):
    torch.manual_seed(0)
    return LevelAware(VisionSpec(inner, FixedCount(5), source_levels), width, hidden, levels)


def seen(inner=8, with_levels=True):
    tokens = torch.randn(2, 5, inner, generator=torch.Generator().manual_seed(1))
    return EncoderOutput(tokens, level_ids=torch.tensor([[0, 1, 2, 2, 1]] * 2) if with_levels else None)


def test_it_has_the_parameters_of_the_specification():
    """[pub] arguments 384 -> 2048 -> 4096; [ours] 1,152 + 788,480 + 8,392,704."""
    with torch.device("meta"):
        model = LevelAware(VisionSpec(384, FixedCount(256), 3), 4096, 2048, levels=True)
        blind = LevelAware(VisionSpec(384, FixedCount(256), 3), 4096, 2048, levels=False)
    assert sum(p.numel() for p in model.parameters()) == 9_182_336
    assert sum(p.numel() for p in blind.parameters()) == 9_182_336 - 1_152
    assert (model.spec.width, model.spec.levels, model.spec.count) == (4096, 3, FixedCount(256))


def test_it_is_two_layers_over_the_token_and_its_level():
    model, given = connector(), seen()
    assert model.levels is not None
    with torch.no_grad():
        model.levels.normal_()
        model.inner.bias.normal_()
        model.outer.bias.normal_()
        model.scale.fill_(0.5)
    found = model(given)
    assert given.level_ids is not None
    for row in range(2):
        for place, level in enumerate(given.level_ids[row].tolist()):
            inner = torch.nn.functional.gelu(model.inner(given.tokens[row, place] + model.levels[level]))
            torch.testing.assert_close(found[row, place], 0.5 * model.outer(inner))


def test_it_starts_blind_to_levels_and_learns_them():
    model, given = connector(), seen()
    assert torch.equal(model(given), model(seen(with_levels=False)))
    model(given).square().sum().backward()
    assert model.levels is not None
    assert model.levels.grad is not None
    assert bool((model.levels.grad.abs().sum(1) > 0).all())


def test_tokens_without_levels_are_all_of_level_zero():
    model = connector(source_levels=1)
    assert model.levels is not None
    with torch.no_grad():
        model.levels.fill_(1.0)
    plain = seen(with_levels=False)
    expected = model(EncoderOutput(plain.tokens, level_ids=torch.zeros(2, 5, dtype=torch.long)))
    torch.testing.assert_close(model(plain), expected)


def test_without_levels_there_is_no_table_and_no_difference():
    model = connector(levels=False)
    assert set(dict(model.named_parameters())) == {"inner.weight", "inner.bias", "outer.weight", "outer.bias"}
    assert torch.equal(model(seen()), model(seen(with_levels=False)))


def test_tokens_come_out_as_loud_as_they_are_to_be():
    model = connector(width=256, inner=64, hidden=128)
    model.match(0.0123)
    tokens = torch.randn(8, 200, 64, generator=torch.Generator().manual_seed(7))
    ids = torch.arange(200).remainder(3).expand(8, -1)
    found = model(EncoderOutput(tokens, level_ids=ids)).square().mean().sqrt().item()
    assert found == pytest.approx(0.0123, rel=0.02)


def test_matching_is_the_same_every_time_and_leaves_the_random_numbers_of_the_run_alone():
    model = connector()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    model.match(0.1)
    first = model.scale.clone()
    model.match(7.0)
    model.match(0.1)
    assert torch.equal(model.scale, first)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_scale_is_saved_and_not_trained():
    model = connector()
    model.match(0.1)
    assert "scale" in model.state_dict()
    assert "scale" not in dict(model.named_parameters())
    twin = connector()
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(seen()), model(seen()))


@pytest.mark.parametrize("rms", [0.0, -1.0, float("nan"), float("inf")])
def test_a_loudness_that_is_none_is_refused(rms):
    model = connector()
    with pytest.raises(InputError, match="must be positive and finite"):
        model.match(rms)
    assert model.scale.item() == 1


def test_weights_that_give_nothing_are_refused():
    model = connector()
    torch.nn.init.zeros_(model.outer.weight)
    with pytest.raises(InputError, match=r"root mean square 0 cannot be brought to the 0\.1"):
        model.match(0.1)
