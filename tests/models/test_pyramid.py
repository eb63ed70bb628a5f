"""Keural's encoder: a stem, squares by saliency, blocks, pooling."""

from __future__ import annotations

import copy

import pytest
import torch
import yaml
from torch import nn

from vlm.contracts.errors import InputError, Mismatch
from vlm.contracts.places import config_dir
from vlm.contracts.vision import ViewSpec
from vlm.models.assemble import create, part
from vlm.models.encoders.pyramid import Pyramid, _waves
from vlm.models.recompute import blocks, recompute

SMALL = {
    "token_budget": 64,
    "width": 32,
    "layers": 2,
    "heads": 2,
    "strides": [2, 2, 2],
    "saliency": "learned",
    "saliency_target": 0.3,
    "kappa": 2.0,
    "drop_path": 0.0,
}


def encoder(size=128, **changed) -> Pyramid:
    """32 channels over 16 x 16 cells, in float64, with weights large enough that everything matters."""
    torch.manual_seed(0)
    model = Pyramid(ViewSpec(3, size, size), **{**SMALL, **changed}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def pictures(count=2, height=128, width=128):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, height, width, generator=generator, dtype=torch.double)


def shipped(name: str) -> tuple[Pyramid, int]:
    """conf/encoder/<name>.yaml on the meta device, which holds no values, and its pixels a side."""
    node = yaml.safe_load((config_dir() / "encoder" / f"{name}.yaml").read_text())
    size = node["views"]["size"]
    with torch.device("meta"):
        return create(part({"encoder": node}, "encoder"), views=ViewSpec(3, size, size)), size


def counted(name: str) -> dict[str, int]:
    """Parameters of each module of conf/encoder/<name>.yaml."""
    found: dict[str, int] = {}
    for key, parameter in shipped(name)[0].named_parameters():
        module = key.partition(".")[0]
        found[module] = found.get(module, 0) + parameter.numel()
    return found


@pytest.mark.parametrize(
    ("name", "parts", "total"),
    [
        ("keural_25m", [2161248, 37057, 443520, 1152, 158208, 21293568, 768, 591744], 24_687_265),
        ("keural_183m", [8635584, 147841, 1771776, 2304, 611328, 170108928, 1536, 2363136], 183_642_433),
    ],
)
def test_the_encoder_has_the_parameters_of_the_specification(name, parts, total):
    """[pub] 24.7M and 183,575,297 (0.04 % below ours); the split into modules is [ours]."""
    modules = ["stem", "saliency", "level_proj", "level_emb", "pos", "blocks", "norm", "pool"]
    found = counted(name)
    assert found == dict(zip(modules, parts, strict=True))
    assert sum(found.values()) == total


def test_the_small_form_is_a_third_of_a_million_parameters():
    assert sum(counted("keural_nano").values()) == 356_521


@pytest.mark.parametrize(
    ("name", "budgets"),
    [("keural_25m", (64, 256, 1024)), ("keural_183m", (9, 513, 2304)), ("keural_nano", (16, 64))],
)
def test_nothing_waits_for_the_device(name, budgets):
    """Where there are no values, whatever asked for one would fail."""
    model, size = shipped(name)
    for budget in budgets:
        seen = model(torch.zeros(2, 3, size, size, device="meta"), budget)
        assert seen.tokens.shape == (2, budget, model.spec.width)


@pytest.mark.parametrize("saliency", ["variance", "uniform"])
def test_only_a_learned_saliency_has_weights(saliency):
    learned, given = (sum(p.numel() for p in encoder(saliency=kind).parameters()) for kind in ("learned", saliency))
    assert learned - given == 32**2 // 4 + 32 // 2 + 1


@pytest.mark.parametrize("saliency", ["learned", "variance", "uniform"])
@pytest.mark.parametrize("budget", [None, 1, 64, 100, 256])
def test_every_budget_gives_as_many_tokens_and_the_whole_record(saliency, budget):
    seen = encoder(saliency=saliency)(pictures(), budget)
    tokens = budget or 64
    assert seen.tokens.shape == (2, tokens, 32)
    assert seen.level_ids is not None
    assert seen.level_ids.shape == (2, tokens)
    assert seen.spatial_metadata is not None
    assert seen.spatial_metadata.shape == (2, tokens, 4)
    assert seen.saliency_scores is not None
    assert seen.saliency_scores.shape == (2, tokens)
    assert seen.pooled is not None
    assert seen.pooled.shape == (2, 32)
    assert (seen.spatial_metadata[..., 2] * seen.spatial_metadata[..., 3]).sum(1).tolist() == pytest.approx([1, 1])
    assert set(seen.aux) == set(Pyramid.reports)


@pytest.mark.parametrize(("height", "width", "budget"), [(96, 160, 15), (48, 48, 36), (256, 128, 128)])
def test_the_same_weights_take_pictures_of_other_sizes(height, width, budget):
    model = encoder()
    seen = model(pictures(1, height, width), budget)
    assert seen.tokens.shape == (1, model.spec.count(height, width, budget), 32)
    assert seen.spatial_metadata is not None
    assert bool((seen.spatial_metadata > 0).all())
    assert bool((seen.spatial_metadata <= 1).all())


def test_an_illegal_budget_is_told_with_the_nearest_legal_ones():
    with pytest.raises(InputError, match="choose token_budget=64 or 67 "):
        encoder()(pictures(), 65)
    with pytest.raises(InputError, match=r"choose encoder\.views\.size=128 or 144"):
        encoder()(pictures(1, 128, 136))


@pytest.mark.parametrize(
    ("changed", "argument", "message"),
    [
        ({"token_budget": 65}, "token_budget", "16 x 16 cells cannot be cut into 65 squares; choose .*=64 or 67"),
        ({"token_budget": 1024}, "token_budget", "choose token_budget=253 or 256"),
        ({"size": 100}, "views", "choose encoder.views.size=96 or 112"),
        ({"width": 40}, "width", "40 is no multiple of 32; choose 32 or 64"),
        ({"heads": 3}, "heads", "3 heads do not divide width 32"),
    ],
)
def test_sizes_that_do_not_meet_are_refused_before_there_are_weights(changed, argument, message):
    with pytest.raises(Mismatch, match=message) as caught:
        encoder(**changed)
    assert caught.value.argument == argument


def test_the_squares_lie_where_the_saliency_of_the_picture_is_high():
    views = torch.zeros(1, 3, 128, 128).double()
    views[..., 64:96, 32:64] = pictures(1, 32, 32)
    seen = encoder(saliency="variance")(views, 64)
    assert seen.spatial_metadata is not None
    assert seen.saliency_scores is not None
    x, y, w, _ = seen.spatial_metadata[0].unbind(-1)
    inside = (x > 0.25) & (x < 0.5) & (y > 0.5) & (y < 0.75)
    assert int(inside.sum()) >= 16
    assert bool((w[inside] == 1 / 16).all()), "every cell that shows something is a token of its own"
    assert seen.saliency_scores[0][inside].min() > seen.saliency_scores[0][~inside].max()


def test_a_blank_picture_is_cut_evenly():
    for saliency in ("variance", "uniform"):
        seen = encoder(saliency=saliency)(torch.zeros(1, 3, 128, 128).double(), 64)
        assert seen.spatial_metadata is not None
        assert set(seen.spatial_metadata[0, :, 2].tolist()) == {1 / 8}
        assert bool(seen.tokens.isfinite().all())


def test_a_picture_is_seen_alike_alone_and_in_a_batch():
    model, views = encoder(), pictures(3)
    together = model(views, 100)
    for row in range(3):
        alone = model(views[row : row + 1], 100)
        assert torch.equal(alone.spatial_metadata[0], together.spatial_metadata[row])
        torch.testing.assert_close(alone.tokens[0], together.tokens[row])
        torch.testing.assert_close(alone.pooled[0], together.pooled[row])


def test_positions_are_waves_of_the_centre_and_logarithms_of_the_size():
    found = _waves(torch.tensor([0.25, 0.5, 1 / 32, 1.0]).double())
    frequencies = torch.pi * 2.0 ** torch.arange(6).double()
    expected = [(0.25 * frequencies).sin(), (0.5 * frequencies).sin(), (0.25 * frequencies).cos()]
    torch.testing.assert_close(found[:18], torch.cat(expected))
    torch.testing.assert_close(found[18:], torch.cat([(0.5 * frequencies).cos(), torch.tensor([0.0, 1.0]).double()]))


def test_a_token_goes_through_the_projection_of_its_level():
    """The whole forward again, token by token, from the record alone."""
    model, views = encoder(), pictures(1)
    for budget in (100, 256):
        seen = model(views, budget)
        maps = views
        for stage in model.stem:
            maps = stage(maps)
        saliency = 0.001 + 0.999 * model.saliency(maps).sigmoid()
        rows = []
        for token, level in enumerate(seen.level_ids[0].tolist()):
            x, y, w, h = (16 * seen.spatial_metadata[0, token]).tolist()
            area = (
                0,
                slice(None),
                slice(round(y - h / 2), round(y + h / 2)),
                slice(round(x - w / 2), round(x + w / 2)),
            )
            weight = saliency[0, :, area[2], area[3]]
            torch.testing.assert_close(seen.saliency_scores[0, token], weight.mean())
            mean = (maps[area] * weight).sum((1, 2)) / weight.sum()
            own = slice(32 * level, 32 * level + 32)
            row = model.level_proj.weight[own] @ mean + model.level_proj.bias[own] + model.level_emb[level]
            rows.append(row + model.pos(_waves(seen.spatial_metadata[0, token])))
        states = torch.stack(rows).unsqueeze(0)
        for block in model.blocks:
            states = block(states)
        torch.testing.assert_close(seen.tokens, model.norm(states))


def test_a_block_is_that_of_a_plain_vision_transformer():
    block = encoder().blocks[0]
    plain = nn.TransformerEncoderLayer(
        32, 2, 128, dropout=0, activation="gelu", batch_first=True, norm_first=True, layer_norm_eps=1e-6
    ).double()
    names = {"norm1": "norm1", "qkv": "self_attn.in_proj_", "out": "self_attn.out_proj", "norm2": "norm2"}
    names |= {"grow": "linear1", "shrink": "linear2"}
    state = {}
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            key = f"{theirs}{kind}" if theirs.endswith("_") else f"{theirs}.{kind}"
            state[key] = getattr(getattr(block, ours), kind).detach()
    plain.load_state_dict(state)
    states = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(block(states), plain(states))


def test_pooling_is_attention_of_one_query_with_the_logarithm_of_the_mass():
    pool, generator = encoder().pool, torch.Generator().manual_seed(1)
    tokens = torch.randn(3, 10, 32, generator=generator).double()
    mass = torch.rand(3, 10, generator=generator).double() + 0.1
    q, k, v = (
        held.unflatten(-1, (2, 16)).transpose(-2, -3)
        for held in (pool.q(pool.query).expand(3, 1, -1), pool.k(tokens), pool.v(tokens))
    )
    expected = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mass.log()[:, None, None])
    torch.testing.assert_close(pool(tokens, mass), pool.out(expected.transpose(1, 2).flatten(1)))


@pytest.mark.parametrize("name", ["keural_nano", "keural_25m"])
def test_pooled_vectors_begin_as_different_as_the_pictures_tokens(name):
    """Else contrastive pretraining would start with one vector for all, and end there."""
    node = yaml.safe_load((config_dir() / "encoder" / f"{name}.yaml").read_text())
    torch.manual_seed(0)
    model = create(part({"encoder": node}, "encoder"), views=ViewSpec(3, 128, 128)).eval()
    views = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))  # blots, as unlike as pictures
    with torch.no_grad():
        seen = model(nn.functional.interpolate(views, size=(128, 128)), 64)

    def apart(rows):
        return (rows - rows.mean(0)).square().sum(1).mean() / rows.square().sum(1).mean()

    means = seen.tokens.mean(1)
    assert apart(means) > 0.01
    assert apart(seen.pooled) == pytest.approx(float(apart(means)), rel=0.2)
    torch.testing.assert_close(nn.functional.cosine_similarity(seen.pooled, means), torch.ones(6), atol=0.05, rtol=0)


def test_a_square_weighs_in_pooling_what_its_parts_would():
    pool = encoder().pool
    tokens = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(1)).double()
    whole = pool(tokens, torch.tensor([[4.0, 1.0, 2.0]]).double())
    parts = pool(tokens[:, [0, 0, 0, 0, 1, 2]], torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0, 2.0]]).double())
    torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize(("budget", "by_tokens"), [(64, True), (256, False)])
def test_saliency_learns_from_pooling_and_where_squares_are_larger_than_a_cell_from_tokens(budget, by_tokens):
    model, views = encoder(), pictures()

    def gradient(what):
        model.zero_grad()
        found = getattr(model(views, budget), what)
        (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(2)).double()).sum().backward()
        return [0.0 if p.grad is None else p.grad.abs().max().item() for p in model.saliency.parameters()]

    assert all(size > 0 for size in gradient("pooled"))
    assert all((size > 0) == by_tokens for size in gradient("tokens"))


def test_the_gradient_is_that_of_the_function():
    model, views = encoder(size=32, token_budget=7), pictures(1, 32, 32).requires_grad_()

    def told(views):
        seen = model(views)
        return seen.tokens, seen.pooled, seen.aux["saliency"]

    assert torch.autograd.gradcheck(told, views, fast_mode=True)


def test_the_aux_term_pulls_the_mean_saliency_of_each_picture_to_its_target():
    model, views = encoder(saliency_target=0.25), pictures()
    together = model(views).aux["saliency"]
    apart = [model(views[row : row + 1]) for row in range(2)]
    torch.testing.assert_close(together, torch.stack([seen.aux["saliency"] for seen in apart]).mean())
    areas = apart[0].spatial_metadata[..., 2] * apart[0].spatial_metadata[..., 3]
    mean = (apart[0].saliency_scores * areas).sum()
    torch.testing.assert_close(apart[0].aux["saliency"], (mean - 0.25) ** 2)
    torch.testing.assert_close(
        encoder(saliency="uniform")(views).aux["saliency"], torch.tensor(0.2**2, dtype=torch.double)
    )


def test_pooling_gives_every_parameter_a_gradient_at_every_budget():
    model = encoder()
    for budget in (1, 64, 256):
        model.zero_grad()
        model(pictures(), budget).pooled.sum().backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("whole", [False, True])
def test_half_precision_changes_the_rounding_and_not_the_record(whole):
    """Saliency, mass and places stay in float32, in autocast and in a model of half precision."""
    model, views = encoder().float(), pictures().float()
    exact = model(views, 100)
    if whole:
        seen = copy.deepcopy(model).bfloat16()(views.bfloat16(), 100)
        assert seen.tokens.dtype == torch.bfloat16
    else:
        with torch.autocast("cpu", torch.bfloat16):
            seen = model(views, 100)
    assert seen.saliency_scores.dtype == seen.spatial_metadata.dtype == torch.float32
    assert (seen.spatial_metadata[..., 2] * seen.spatial_metadata[..., 3]).sum(1).tolist() == [1.0, 1.0]
    assert bool(seen.tokens.isfinite().all())
    torch.testing.assert_close(seen.pooled.float(), exact.pooled, rtol=0.1, atol=0.1)


def test_recomputed_blocks_are_the_stem_and_the_transformer():
    model = encoder(drop_path=0.5).train()
    assert blocks(model) == [*model.stem, *model.blocks]
    gradients = []
    for _ in range(2):
        model.zero_grad()
        torch.manual_seed(3)
        seen = model(pictures())
        (seen.tokens.square().sum() + seen.pooled.sum()).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        recompute(model)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_left_out_branches_are_made_up_for_and_only_in_training():
    model = encoder(drop_path=0.5)
    assert [block.drop_path for block in model.blocks] == [0.0, 0.5]
    block = model.blocks[1]
    branch = torch.ones(4000, 1, 1).double()
    assert torch.equal(block._kept(branch), branch)
    torch.manual_seed(0)
    kept = block.train()._kept(branch)
    assert set(kept.flatten().tolist()) == {0.0, 2.0}
    assert kept.mean().item() == pytest.approx(1, abs=0.1)


def test_it_starts_with_small_residual_branches_and_an_even_saliency():
    torch.manual_seed(0)
    model = Pyramid(ViewSpec(3, 128, 128), **SMALL | {"layers": 8, "width": 96, "heads": 3})
    assert model.blocks[0].qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.blocks[3].out.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert model.blocks[7].shrink.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert not bool(model.level_proj.bias.any())
    seen = model(pictures(4).float(), 256)
    assert 0.4 < seen.saliency_scores.min() < seen.saliency_scores.max() < 0.6
