"""Contrastive losses against their formulas, one row at a time, and against the published implementation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from vlm.losses.contrastive import clip_loss, siglip_loss


def rows(count: int, seed: int, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=-1)


def unequal(count: int) -> Tensor:
    return torch.eye(count, dtype=torch.bool)


IMAGE, TEXT = rows(5, 1), rows(5, 2)
SCALE = torch.tensor([math.log(1 / 0.07)], dtype=torch.float64)
BIAS = torch.tensor([-10.0], dtype=torch.float64)
# The first, third and last captions are equal.
SAME = torch.tensor([0, 1, 0, 2, 0]).unsqueeze(0) == torch.tensor([0, 1, 0, 2, 0]).unsqueeze(1)


def test_without_equal_captions_it_is_the_loss_of_transformers_clip():
    found = clip_loss(IMAGE, TEXT, unequal(5), SCALE)
    wanted = image_text_contrastive_loss(TEXT @ IMAGE.T * SCALE.exp())
    assert int(found.count) == 5
    torch.testing.assert_close(found.total / found.count, wanted, rtol=1e-12, atol=0)


def test_two_right_pairs_at_right_angles_have_the_loss_that_paper_and_pencil_give():
    found = clip_loss(torch.eye(2).double(), torch.eye(2).double(), unequal(2), torch.tensor(math.log(3.0)))
    assert float(found.total) == pytest.approx(2 * math.log(1 + math.exp(-3)), rel=1e-7)


def test_equal_captions_share_the_target_evenly():
    logits = IMAGE @ TEXT.T * SCALE.exp()
    total = 0.0
    for each in (logits, logits.T):
        for row in range(5):
            logp = each[row].log_softmax(0)
            total -= logp[SAME[row]].mean() / 2
    torch.testing.assert_close(clip_loss(IMAGE, TEXT, SAME, SCALE).total, total, rtol=1e-12, atol=0)


def test_a_batch_of_one_caption_has_nothing_to_tell_apart():
    everything = torch.ones(4, 4, dtype=torch.bool)
    found = clip_loss(rows(4, 3), rows(1, 4).expand(4, -1), everything, SCALE)
    # Every caption is right for every picture: from picture to caption the loss is that of a fair draw.
    similar = rows(4, 3) @ rows(1, 4).T * SCALE.exp()
    wanted = (4 * math.log(4) + 4 * (similar.logsumexp(0) - similar.mean())) / 2
    assert float(found.total) == pytest.approx(float(wanted), rel=1e-12)


@pytest.mark.parametrize("same", [unequal(5), SAME], ids=["all different", "some equal"])
def test_the_sigmoid_loss_is_the_papers_sum_over_all_pairs(same):
    """Zhai et al. 2023: minus the sum over i and j of log sigmoid(z_ij (t x_i . y_j + b)), over the batch size."""
    total = 0.0
    for i in range(5):
        for j in range(5):
            z = 1 if same[i, j] else -1
            total -= math.log(1 / (1 + math.exp(-z * float(IMAGE[i] @ TEXT[j] * SCALE.exp() + BIAS))))
    found = siglip_loss(IMAGE, TEXT, same, SCALE, BIAS)
    assert int(found.count) == 5
    assert float(found.total) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_gradients_are_those_of_finite_differences(name):
    def total(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return (
            clip_loss(image, text, SAME, scale) if name == "clip" else siglip_loss(image, text, SAME, scale, bias)
        ).total

    leaves = [tensor.clone().requires_grad_() for tensor in (IMAGE, TEXT, torch.tensor([1.0]).double(), BIAS / 5)]
    assert torch.autograd.gradcheck(total, leaves)


def test_the_order_of_pairs_does_not_matter():
    order = torch.tensor([3, 0, 4, 1, 2])
    for loss in (lambda *given: clip_loss(*given, SCALE), lambda *given: siglip_loss(*given, SCALE, BIAS)):
        one, other = loss(IMAGE, TEXT, SAME), loss(IMAGE[order], TEXT[order], SAME[order][:, order])
        torch.testing.assert_close(one.total, other.total, rtol=1e-12, atol=0)


def test_half_precision_rows_are_compared_in_float32():
    image, text = IMAGE.bfloat16(), TEXT.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = clip_loss(image, text, SAME, SCALE.float())
    wanted = clip_loss(image.double(), text.double(), SAME, SCALE)
    assert found.total.dtype == torch.float32
    assert float(found.total) == pytest.approx(float(wanted.total), rel=1e-6)
