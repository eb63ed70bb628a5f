"""The foveated fusion: the public reference's figures, what its modes have in common, and what must not leak."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from tests.models.foveal import clip_batch, clips, foveal_model, packed, texts
from vlm.contracts.batch import IGNORE, Batch
from vlm.contracts.vision import ViewSpec
from vlm.models.connectors.foveal import Foveal
from vlm.models.encoders.dinov2 import DINOv2
from vlm.models.encoders.dinov2_folder import own_name
from vlm.models.encoders.vit import ViT
from vlm.models.fusion.foveated import Foveated, Mode
from vlm.models.llms.gpt2 import GPT2
from vlm.models.vlm import VLM

MODES: tuple[Mode, ...] = ("coarse_only", "coarse_fine", "autoregressive")
FRAMES = 4
# mode -> loss from the fourth text token on, over all text, sum and sum of absolutes of the text's logits.
# coarse_fine never predicts the first token there; the other two do.
REFERENCE = {
    "coarse_only": (4.301543761080832, 4.3450609336533725, 0.030922679985234014, 1659.6175417831623),
    "coarse_fine": (4.314903170927805, 4.356226112701006, 0.06201284791581241, 1757.235066855199),
    "autoregressive": (4.314742521276394, 4.367576239942787, 0.06189853194486794, 1756.2929169636725),
}


def embeds_of(model: VLM, batch: Batch, mode: Mode | None = None) -> Tensor:
    """The visual tokens of a batch, [M, W]."""
    if mode is not None:
        model.fusion = Foveated(model.connector.spec, 32, mode)
    embeds, _ = model.fusion(batch, model.encoder, model.connector, model.llm)
    return embeds[batch.ids < 0]


def loss_of(model: VLM, batch: Batch) -> float:
    return -(model(batch).logp.sum() / (batch.labels[:, 1:] != IGNORE).sum()).item()


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_every_mode_gives_the_figures_of_the_public_reference(mode: Mode) -> None:
    model = foveal_model(mode)
    answers, whole, total, absolutes = REFERENCE[mode]
    first = 1 if mode == "coarse_fine" else 0
    # The reference's norms of the language model work in float32 inside.
    assert loss_of(model, clip_batch(clips(), texts(), FRAMES, 3)) == pytest.approx(answers, rel=1e-6)
    batch = clip_batch(clips(), texts(), FRAMES, first)
    assert loss_of(model, batch) == pytest.approx(whole, rel=1e-6)
    embeds, _ = model.fusion(batch, model.encoder, model.connector, model.llm)
    logits = model.llm.logits(model.llm(embeds, batch.positions))[:, FRAMES:]
    assert logits.abs().sum().item() == pytest.approx(absolutes, abs=1e-3)
    assert logits.sum().item() == pytest.approx(total, abs=1e-3)


@torch.no_grad()
def test_patches_and_answers_have_the_reference_s_sums() -> None:
    model = foveal_model("coarse_fine")
    seen = model.encoder(clips()[:FRAMES])
    assert (seen.tokens.sum() + seen.pooled.sum()).item() == pytest.approx(-23.96798057565702, rel=1e-9)
    for shift, expected in (
        (0, (-17.233568477787305, -17.28565688963514)),
        (1, (-17.09794021789525, -17.22443634781407)),
    ):
        sums = model(clip_batch(clips(), texts(shift), FRAMES, 3)).logp.sum(1)
        assert sums.tolist() == pytest.approx(expected, rel=1e-6)


@torch.no_grad()
def test_a_query_that_is_the_class_token_s_embedding_finds_what_the_class_token_finds() -> None:
    encoder = foveal_model("coarse_only").encoder
    views = clips()[:3]
    seen = encoder(views)
    torch.testing.assert_close(seen.read(encoder.embedded(views)[:, :1])[:, 0], seen.pooled, rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", [56, 84])
@torch.no_grad()
def test_it_is_the_dinov2_of_transformers_at_any_size(side: int) -> None:
    public = Dinov2Model(
        Dinov2Config(
            hidden_size=48, num_hidden_layers=3, num_attention_heads=6, mlp_ratio=4, image_size=56, patch_size=14,
            layerscale_value=0.5,
        )
    ).double().eval()  # fmt: skip
    ours = DINOv2(ViewSpec(3, side, side), 14, 48, 3, 6, 192, grid=4, scale=1.0).double().eval()
    torch.nn.init.normal_(public.embeddings.position_embeddings)
    ours.load_state_dict({own_name(name): tensor for name, tensor in public.state_dict().items()})
    views = torch.randn(2, 3, side, side, dtype=torch.float64)
    expected = public(views).last_hidden_state
    seen = ours(views)
    torch.testing.assert_close(seen.tokens, expected[:, 1:], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(seen.pooled, expected[:, 0], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_of_one_view_the_two_foveated_modes_are_the_same_and_all_three_where_it_is_asked_alike() -> None:
    batch = clip_batch(clips(1), texts(), 1, 0)
    model = foveal_model("coarse_fine")
    tokens = {mode: embeds_of(model, batch, mode) for mode in MODES}
    torch.testing.assert_close(tokens["coarse_fine"], tokens["autoregressive"], rtol=0, atol=0)
    assert not torch.allclose(tokens["coarse_fine"], tokens["coarse_only"])
    model.connector.first.data.copy_(model.connector.static.data)
    torch.testing.assert_close(embeds_of(model, batch, "coarse_fine"), tokens["coarse_only"], rtol=0, atol=1e-12)


@torch.no_grad()
def test_with_one_query_for_first_and_static_two_views_agree_and_four_do_not() -> None:
    model = foveal_model("coarse_fine")
    model.connector.first.data.copy_(model.connector.static.data)
    for frames, alike in ((2, True), (4, False)):
        batch = clip_batch(clips(frames), texts(), frames, 0)
        model.fusion.mode = "coarse_fine"
        fine = loss_of(model, batch)
        model.fusion.mode = "autoregressive"
        assert (abs(fine - loss_of(model, batch)) < 1e-12) == alike


@torch.no_grad()
def test_blind_queries_make_all_modes_equal() -> None:
    model = foveal_model("coarse_only")
    model.connector.first.data.copy_(model.connector.static.data)
    model.connector.steer.weight.zero_()
    model.connector.steer.bias.copy_(model.connector.static[0])
    batch = clip_batch(clips(), texts(), FRAMES, 0)
    found = [embeds_of(model, batch, mode) for mode in MODES]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-12)


def test_of_one_view_static_query_and_steering_learn_nothing_and_of_two_they_do() -> None:
    norms = {}
    for frames in (1, 2):
        model = foveal_model("coarse_fine")
        batch = clip_batch(clips()[::FRAMES] if frames == 1 else clips()[[0, 1, 4, 5]], texts(), frames, 3)
        (-model(batch).logp.sum() / (batch.labels[:, 1:] != IGNORE).sum()).backward()
        grads = (model.connector.static.grad, model.connector.first.grad, model.connector.steer.weight.grad)
        norms[frames] = [0.0 if grad is None else grad.norm().item() for grad in grads]
    static, first, steer = norms[1]
    assert static == 0
    assert steer == 0
    assert first == pytest.approx(0.0510, abs=5e-5)
    assert norms[2] == pytest.approx([2.768e-4, 0.0401, 0.0503], rel=2e-3)


@pytest.mark.parametrize("mode", ["coarse_fine", "autoregressive"])
@torch.no_grad()
def test_a_view_changes_its_own_token_and_those_behind_it_alone(mode: Mode) -> None:
    model = foveal_model(mode)
    views = clips(FRAMES, 1)
    before = embeds_of(model, clip_batch(views, texts(rows=1), FRAMES, 0))
    for changed in range(FRAMES):
        other = views.clone()
        other[changed] = other[changed].flip(-1)
        found = embeds_of(model, clip_batch(other, texts(rows=1), FRAMES, 0))
        differs = [(a - b).abs().max().item() > 1e-12 for a, b in zip(found, before, strict=True)]
        assert differs == [place >= changed for place in range(FRAMES)]


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_a_view_that_stands_in_several_places_is_encoded_once(mode: Mode) -> None:
    model = foveal_model(mode)
    view = clips(1, 1)
    ids = texts(rows=1)[0].tolist()
    apart = packed(view.expand(3, -1, -1, -1), [([0, 1, 2], ids)])
    torch.testing.assert_close(model(packed(view, [([0, 0, 0], ids)])).logp, model(apart).logp, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_packed_clips_of_any_length_and_text_without_views_are_as_if_each_were_alone(mode: Mode) -> None:
    model = foveal_model(mode)
    views, ids = clips(), texts(rows=4).tolist()
    rows = [([0, 1, 2], ids[0]), ([], ids[1]), ([3], ids[2]), ([4, 1, 5, 6, 7], ids[3])]
    together = packed(views, rows)
    logp = model(together).logp
    logp.sum().backward()
    packed_grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    alone = [model(packed(views, [row])).logp.sum() for row in rows]
    torch.stack(alone).sum().backward()
    torch.testing.assert_close(together.by_segment(logp)[0], torch.stack(alone), rtol=0, atol=1e-9)
    for name, parameter in model.named_parameters():
        if name in packed_grads:
            torch.testing.assert_close(packed_grads[name], parameter.grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_two_answers_to_one_clip_share_its_views(mode: Mode) -> None:
    model = foveal_model(mode)
    views = clips(3, 1)
    whole = clip_batch(views, texts(rows=1), 3, 0)
    length = whole.ids.shape[1]
    branch = texts(5, rows=1)[0, -2:]
    joined = replace(
        whole,
        ids=torch.cat([whole.ids, branch[None]], 1),
        labels=torch.cat([whole.labels, branch[None]], 1),
        positions=torch.cat([whole.positions, torch.tensor([[length - 2, length - 1]])], 1),
        segment=torch.tensor([[0] * (length - 2) + [1] * 2 + [2] * 2]),
        parent=torch.tensor([-1, 0, 0]),
        sample=torch.zeros(3, dtype=torch.long),
    )
    torch.testing.assert_close(embeds_of(model, joined), embeds_of(model, whole), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_text_alone_takes_no_visual_token_and_every_parameter_has_a_gradient(mode: Mode) -> None:
    model = foveal_model(mode)
    batch = packed(clips(1, 1), [([], texts(rows=1)[0].tolist())])
    model(batch).logp.sum().backward()
    trained = [n for n, p in model.named_parameters() if p.grad is None]
    assert all(name.startswith(("encoder.mask",)) for name in trained), trained


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_any_encoder_that_answers_queries_and_any_language_model_take_part(mode: Mode) -> None:
    """A plain ViT without class token, and a GPT-2 with learned positions."""
    torch.manual_seed(0)
    encoder = ViT(ViewSpec(3, 16, 16), patch=8, width=24, layers=2, heads=3, mlp=48)
    llm = GPT2(vocab_size=97, width=20, layers=2, heads=2, mlp=40, max_positions=64, dropout=0.0)
    connector = Foveal(encoder.spec, 20, query_width=12, scale=1.0)
    model = VLM(encoder, connector, llm, Foveated(connector.spec, 20, mode), config={}).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    views, ids = torch.randn(5, 3, 16, 16, dtype=torch.float64), texts(rows=3).tolist()
    rows = [([0, 1, 2], ids[0]), ([], ids[1]), ([4, 3], ids[2])]
    together = packed(views, rows)
    sums, _ = together.by_segment(model(together).logp)
    alone = torch.stack([model(packed(views, [row])).logp.sum() for row in rows])
    torch.testing.assert_close(sums, alone, rtol=0, atol=1e-9)
    token = encoder(views[:1])
    whole = encoder.patches(views[:1]).flatten(2).transpose(1, 2) + encoder.positions
    torch.testing.assert_close(token.read(whole), token.tokens, rtol=0, atol=1e-12)  # its own patches ask what they ask
