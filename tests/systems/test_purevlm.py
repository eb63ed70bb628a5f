"""purevlm to float64 precision. Numbers: the public project's file, run with deterministic weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import vlm
from tests.systems.sine import sine

ROOT2 = 2**0.5
TABLE = [  # the published order, shapes and standard deviations
    *(("bae1_l", (10, 196), 0.05), ("bae1_r", (10, 196), 0.05), ("bae2_l", (10, 196), 0.05)),
    *(("bae2_r", (10, 196), 0.05), ("tp_proj_a", (12, 10), 0.08), ("tp_proj_b", (12, 10), 0.08)),
    *((f"bae_deg2_{i}", (8, 196), 0.05) for i in range(2)),
    *((f"bae_deg3_{i}", (8, 196), 0.05) for i in range(3)),
    *(("vis_proj_l", (32, 28), 0.08), ("vis_proj_r", (32, 28), 0.08), ("wte", (17, 32), 0.08)),
    *(("wpe", (36, 32), 0.08), ("wq", (32, 32), 0.08), ("wk", (32, 32), 0.08), ("wv", (32, 32), 0.08)),
    *(("wo", (32, 32), 0.08), ("mlp_fc1", (128, 32), 0.08), ("mlp_fc2", (32, 128), 0.08)),
    ("lm_head", (17, 32), 0.08),
]
SEVEN = torch.tensor([15, 8, 0, 11, 0, 5, 16])
PICTURE = torch.from_numpy(0.5 + 0.5 * np.sin(0.11 * np.arange(196))).reshape(1, 1, 14, 14)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "purevlm.npz"
    np.savez(path, **{name: sine(k, shape, std * ROOT2) for k, (name, shape, std) in enumerate(TABLE)})
    return path


@pytest.fixture
def model(file: Path):
    return vlm.import_checkpoint("purevlm", file)


def text_loss(model, ids=SEVEN):
    """Mean over the six targets of `ids`, through the training path."""
    from vlm.losses.language import language_loss

    batch = training_batch(model, ids)
    loss = language_loss(model(batch).logp, batch)
    return loss.total / loss.count


def training_batch(model, ids=SEVEN):
    from vlm.contracts.batch import IGNORE, VISUAL, Batch

    row = torch.cat([torch.full((28,), VISUAL), ids]).unsqueeze(0)
    labels = row.clone()
    labels[:, :29] = IGNORE
    return Batch(
        ids=row,
        labels=labels,
        positions=torch.arange(row.shape[1]).unsqueeze(0),
        segment=torch.zeros_like(row),
        parent=torch.tensor([-1]),
        sample=torch.tensor([0]),
        views=PICTURE,
        slots=torch.tensor([[0, 0]]),
        pictures=torch.tensor([1]),
    )


def with_fidelity(model, fidelity: str):
    """The same weights under the other backward and loss."""
    twin = vlm.build_model(["experiment=purevlm", f"llm.fidelity={fidelity}"]).double()
    twin.load_state_dict(model.state_dict())
    return twin


def test_has_the_published_number_of_parameters():
    report = vlm.parameter_report(vlm.build_model(["experiment=purevlm"]))
    assert report["total"] == report["untied"] == report["trainable"] == 32_240
    assert len(list(vlm.build_model(["experiment=purevlm"]).parameters())) == 22


def test_features_and_visual_vector_equal_the_published_code(model):
    features = model.encoder(PICTURE).tokens[0, 0]
    np.testing.assert_allclose(features[:4].detach(), [0.13704256, -0.27346144, 0.39877101, -0.4731445], atol=5e-9)
    assert features.sum().item() == pytest.approx(0.08592284100061748, rel=1e-9)
    vectors = model.connector(model.encoder(PICTURE))[0]
    assert vectors.shape == (28, 32)
    assert torch.equal(vectors, vectors[:1].expand_as(vectors))
    np.testing.assert_allclose(vectors[0, :3].detach(), [4.09015218e-05, -2.32716403e-06, 8.39090243e-05], rtol=1e-8)
    assert vectors[0].sum().item() == pytest.approx(4.9521019196654495e-05, rel=1e-9)


def test_logits_equal_the_published_code(model):
    logits = vlm.logits(model, PICTURE, SEVEN)
    assert logits.shape == (7, 17)
    assert logits.dtype == torch.float64
    np.testing.assert_allclose(
        logits[0, :3], [0.20274193780359956, -0.27272879710259273, 0.32263429533622745], rtol=1e-9
    )
    assert logits.sum().item() == pytest.approx(-0.4269273848874443, rel=1e-9)
    assert logits.abs().sum().item() == pytest.approx(33.52356649582214, rel=1e-9)


def test_loss_and_reconstruction_equal_the_published_code(model):
    assert text_loss(model).item() == pytest.approx(2.938778365673874, rel=1e-12)
    reference = text_loss(with_fidelity(model, "reference")).item()
    assert reference == pytest.approx(2.938778363694364, rel=1e-12)
    reconstruction = model.encoder(PICTURE).aux["reconstruction"].item()
    assert reconstruction == pytest.approx(1.485991278662792, rel=1e-9)
    assert reference + 0.01 * reconstruction == pytest.approx(2.953638276480992, rel=1e-9)


def test_an_untrained_model_says_nothing(model):
    assert vlm.generate(model, "", images=[PICTURE[0]]) == ""


GRADIENTS = {  # name: exact norm, reference norm, cosine between them
    "llm.lm_head": (2.221092e00, 2.221092e00, 1.000000),
    "llm.layers.0.mlp_fc2": (2.611105e00, 2.611105e00, 1.000000),
    "llm.layers.0.mlp_fc1": (2.777610e00, 2.777610e00, 1.000000),
    "llm.layers.0.wo": (1.342734e-02, 1.328213e-02, 0.996971),
    "llm.layers.0.wq": (3.261974e-05, 3.909168e-05, 0.978869),
    "llm.wte": (1.792189e00, 2.242184e-02, 0.991728),
    "llm.wpe": (1.816100e00, 2.274781e-02, 0.991861),
    "connector.vis_proj_l": (1.771047e-03, 8.425013e-06, 0.986986),
    "encoder.bae1_l": (1.538451e-04, 5.519625e-07, 0.999677),
    "encoder.tp_proj_a": (6.058868e-04, 2.701158e-06, 0.987431),
    "encoder.bae_deg2_0": (3.029330e-04, 1.094413e-06, 0.963787),
    "encoder.bae_deg3_2": (5.110974e-07, 2.419288e-09, 0.988298),
}


def test_gradients_equal_autograd_and_the_published_backward(model):
    reference = with_fidelity(model, "reference")
    text_loss(model).backward()
    text_loss(reference).backward()
    exact, published = dict(model.named_parameters()), dict(reference.named_parameters())
    for name, (norm, reference_norm, cosine) in GRADIENTS.items():
        ours, theirs = exact[name].grad, published[name].grad
        assert ours.norm().item() == pytest.approx(norm, rel=1e-6), name
        assert theirs.norm().item() == pytest.approx(reference_norm, rel=1e-6), name
        found = ((ours * theirs).sum() / ours.norm() / theirs.norm()).item()
        assert found == pytest.approx(cosine, abs=1e-6), name
    for parameters, total in ((exact, 5.0969935825581025), (published, 4.412204125130996)):
        norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in parameters.values()])).item()
        assert norm == pytest.approx(total, rel=1e-9)


def test_brightness_does_not_matter(model):
    bright = vlm.logits(model, PICTURE * 0.3, SEVEN)
    torch.testing.assert_close(bright, vlm.logits(model, PICTURE, SEVEN), atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("encoder.bae1_l", "encoder.bae1_r"),
        ("encoder.bae_deg2_0", "encoder.bae_deg2_1"),
        ("connector.vis_proj_l", "connector.vis_proj_r"),
    ],
)
def test_the_two_sides_of_a_product_can_be_swapped_or_both_negated(model, first, second):
    before = vlm.logits(model, PICTURE, SEVEN)
    a, b = model.get_parameter(first).data, model.get_parameter(second).data
    model.get_parameter(first).data, model.get_parameter(second).data = b, a
    torch.testing.assert_close(vlm.logits(model, PICTURE, SEVEN), before)
    a.neg_()
    b.neg_()
    torch.testing.assert_close(vlm.logits(model, PICTURE, SEVEN), before)


def test_tensor_attention_is_even_in_each_half_pair(model):
    before = vlm.logits(model, PICTURE, SEVEN)
    wq = model.llm.layers[0].wq
    wq.data.neg_()
    torch.testing.assert_close(vlm.logits(model, PICTURE, SEVEN), before, rtol=0, atol=1e-12)
    wq.data[0:4].neg_()
    assert (vlm.logits(model, PICTURE, SEVEN) - before).abs().max() > 0


def test_later_text_does_not_change_earlier_logits(model):
    changed = SEVEN.clone()
    changed[4] = 9
    before, after = vlm.logits(model, PICTURE, SEVEN), vlm.logits(model, PICTURE, changed)
    assert torch.equal(before[:4], after[:4])
    assert not torch.equal(before[4:], after[4:])


def test_visual_tokens_differ_by_position_only(model):
    model.llm.wpe.data.zero_()
    rows = vlm.logits(model, PICTURE, SEVEN, visual=True)[:28]
    torch.testing.assert_close(rows, rows[:1].expand_as(rows))


def test_cached_decoding_equals_the_full_pass(model):
    from transformers.cache_utils import DynamicCache

    embeds = torch.cat([model.connector(model.encoder(PICTURE)), model.llm.embed(SEVEN.unsqueeze(0))], dim=1)
    positions = torch.arange(embeds.shape[1]).unsqueeze(0)
    full = model.llm.logits(model.llm(embeds, positions))
    cache = DynamicCache()
    pieces = (slice(0, 28), *(slice(i, i + 1) for i in range(28, 35)))
    steps = [model.llm.logits(model.llm(embeds[:, piece], positions[:, piece], None, cache)) for piece in pieces]
    torch.testing.assert_close(torch.cat(steps, dim=1), full, rtol=0, atol=1e-12)


def test_a_detached_reconstruction_gives_no_gradient(file):
    detached = vlm.import_checkpoint("purevlm", file)
    assert not detached.encoder(PICTURE).aux["reconstruction"].requires_grad
    attached = vlm.build_model(["experiment=purevlm", "encoder.recon_detach=false"])
    attached.encoder(PICTURE.float()).aux["reconstruction"].backward()
    assert attached.encoder.bae_deg2_0.grad.abs().sum() > 0


def test_a_black_picture_gives_zeros_and_no_nan(model):
    black = torch.zeros_like(PICTURE)
    assert model.encoder(black).tokens.abs().max() == 0
    assert vlm.logits(model, black, SEVEN).isfinite().all()


def test_learns_ten_pictures_by_heart():
    torch.manual_seed(0)
    model = vlm.build_model(["experiment=purevlm"]).train()
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    pictures = torch.rand(10, 1, 14, 14) * (torch.rand(10, 1, 14, 14) > 0.7)
    batch = model.processor.collate(
        [with_answer(model, view, name) for view, name in zip(pictures, names, strict=True)]
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.85, 0.99))
    for _ in range(200):
        output = model(batch)
        loss = -output.logp.sum() / (batch.labels[:, 1:] != -100).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01
    assert [vlm.generate(model, "", images=[picture]) for picture in pictures] == names


def with_answer(model, view, name):
    from vlm.contracts.sample import Turn

    turns = (Turn("user", (0,)), Turn("assistant", (name,)))
    row = model.processor.row(turns, [1], False, None)
    return model.processor._example(name, [row], [turns], [[view]], [0])


def test_degrees_and_attention_are_options():
    smaller = vlm.build_model(["experiment=purevlm", "encoder.degree3=0", "llm.attention=dot"])
    assert smaller.encoder.spec.width == 20
    assert vlm.parameter_report(smaller)["total"] == 32_240 - 3 * 8 * 196 - 2 * 32 * 8


def test_a_file_with_a_missing_or_extra_tensor_is_refused(tmp_path: Path):
    tensors = {name: sine(k, shape, std * ROOT2) for k, (name, shape, std) in enumerate(TABLE)}
    np.savez(tmp_path / "less.npz", **{name: value for name, value in tensors.items() if name != "wo"})
    with pytest.raises(ValueError, match="'wo' is missing"):
        vlm.import_checkpoint("purevlm", tmp_path / "less.npz")
    np.savez(tmp_path / "more.npz", **tensors, surplus=np.zeros(3))
    with pytest.raises(ValueError, match="surplus"):
        vlm.import_checkpoint("purevlm", tmp_path / "more.npz")
