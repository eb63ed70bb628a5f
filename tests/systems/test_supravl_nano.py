"""SupraVL-Nano to float64 precision, and its published folder. Numbers: the specification's deterministic weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

import vlm
from tests.systems.sine import assign, sine
from vlm.contracts.batch import IGNORE, VISUAL, Batch
from vlm.contracts.sample import Turn
from vlm.losses.language import language_loss

EXPERIMENT = ["experiment=supravl_nano"]


def listed(model) -> list[tuple[str, torch.Tensor]]:
    """The 48 tensors in the order of the specification."""
    encoder = [(f"encoder.stages.{i}.{j}.{name}") for i in range(3) for j in range(2) for name in ("weight", "bias")]
    block = ("ln1.weight", "ln1.bias", "qkv.weight", "out.weight", "ln2.weight", "ln2.bias")
    block = (*block, "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    names = [
        *encoder,
        "connector.project.weight",
        "connector.project.bias",
        "llm.tok_emb.weight",
        "llm.pos_emb.weight",
        *(f"llm.blocks.{i}.{name}" for i in range(3) for name in block),
        "llm.ln_f.weight",
        "llm.ln_f.bias",
    ]
    return [(name, model.get_parameter(name)) for name in names]


@pytest.fixture
def model():
    built = vlm.build_model(EXPERIMENT).double()
    for number, (name, parameter) in enumerate(listed(built)):
        shift = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
        assign(parameter, shift + sine(number, tuple(parameter.shape), 0.1))
    return built.eval()


@pytest.fixture
def batch() -> Batch:
    ids = (37 * torch.arange(20) % 2048).reshape(2, 10)
    ids[:, 0] = 1
    rows = torch.cat([torch.full((2, 16), VISUAL), ids], dim=1)
    labels = rows.clone()
    labels[:, :17] = IGNORE
    return Batch(
        ids=rows,
        labels=labels,
        positions=torch.arange(26).expand(2, 26),
        segment=torch.tensor([[0], [1]]).expand(2, 26),
        parent=torch.tensor([-1, -1]),
        sample=torch.tensor([0, 1]),
        views=torch.sin(0.01 * torch.arange(2 * 3 * 112 * 112).double()).reshape(2, 3, 112, 112),
        slots=torch.tensor([[0, 0], [1, 1]]),
        pictures=torch.tensor([1, 2]),
    )


def all_logits(model, batch) -> torch.Tensor:
    embeds, _ = model.fusion(batch, model.encoder, model.connector, model.llm)
    return model.llm.logits(model.llm(embeds, batch.positions))


def test_has_the_published_numbers_of_parameters():
    report = vlm.parameter_report(vlm.build_model(EXPERIMENT))
    assert (report["total"], report["untied"]) == (698_624, 960_768)
    assert report["parts"]["encoder"] + report["parts"]["connector"] == 32_128


def test_visual_tokens_logits_and_loss_equal_the_specification(model, batch):
    visual = model.connector(model.encoder(batch.views))
    assert visual.shape == (2, 16, 128)
    assert visual.sum().item() == pytest.approx(-36.026961320196705, rel=1e-9)
    logits = all_logits(model, batch)
    assert logits.sum().item() == pytest.approx(168.75282249026182, rel=1e-9)
    assert logits.abs().mean().item() == pytest.approx(0.4917519605400042, rel=1e-9)
    assert logits[0, 15, :3].tolist() == pytest.approx(
        [0.3182826483903206, 0.5785267045326201, 0.7474069479868312], rel=1e-9
    )
    assert logits[1, 25, :3].tolist() == pytest.approx(
        [0.12035975242039376, 0.06780037317551176, 0.004533622004298381], rel=1e-9
    )
    loss = language_loss(model(batch).logp, batch)
    assert (loss.total / loss.count).item() == pytest.approx(8.112661520869791, rel=1e-12)
    assert loss.count == 18


def test_the_python_call_gives_the_same_rows(model, batch):
    rows = vlm.logits(model, batch.views[1:], batch.ids[1, 16:], visual=True)
    torch.testing.assert_close(rows, all_logits(model, batch)[1])
    torch.testing.assert_close(vlm.logits(model, batch.views[1:], batch.ids[1, 16:]), rows[16:])


def test_batch_statistics_are_used_in_training_only(model, batch):
    alone = vlm.logits(model, batch.views[:1], batch.ids[0, 16:], visual=True)
    torch.testing.assert_close(alone, all_logits(model, batch)[0])
    model.train()
    assert all_logits(model, batch).sum().item() == pytest.approx(171.69205166004912, rel=1e-9)


def test_head_and_table_share_storage_through_moves_and_files(model, tmp_path: Path):
    from vlm.training.weights import save_model

    def shared(m) -> bool:
        return m.llm.lm_head.weight.data_ptr() == m.llm.tok_emb.weight.data_ptr()

    assert shared(model)
    assert shared(model.to(torch.float32))
    model.processor.tokenizer.fit(["a cat", "a dog"])
    save_model(model, tmp_path / "model")
    again = vlm.load_model(tmp_path / "model")
    assert shared(again)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_later_text_changes_no_earlier_logit_and_pixels_change_all_text(model, batch):
    before = vlm.logits(model, batch.views[:1], batch.ids[0, 16:])
    ids = batch.ids[0, 16:].clone()
    ids[5] = 7
    after = vlm.logits(model, batch.views[:1], ids)
    assert torch.equal(before[:5], after[:5])
    views = batch.views[:1].clone()
    views[0, 0, 55, 55] += 1
    assert ((vlm.logits(model, views, batch.ids[0, 16:]) - before).abs().amax(1) > 0).all()


def test_padding_on_the_right_changes_nothing(model, batch):
    ids = torch.cat([batch.ids[0, 16:], torch.zeros(5, dtype=torch.long)])
    torch.testing.assert_close(
        vlm.logits(model, batch.views[:1], ids)[:10], vlm.logits(model, batch.views[:1], batch.ids[0, 16:])
    )


def test_the_first_loss_is_that_of_a_uniform_guess(batch):
    fresh = vlm.build_model(EXPERIMENT).double()
    loss = language_loss(fresh(batch).logp, batch)
    assert (loss.total / loss.count).item() == pytest.approx(7.6, abs=0.1)


@pytest.fixture
def learner():
    """A model with a tokenizer, and sixteen rows of eleven random words and an end, each with a smooth picture."""
    torch.manual_seed(0)
    model = vlm.build_model(EXPERIMENT)
    words = [f"w{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(120)]
    model.processor.tokenizer.fit(words * 3)
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(16, 3, 4, 4, generator=generator)
    views = torch.nn.functional.interpolate(coarse, size=(112, 112), mode="bicubic")
    texts = [" ".join(words[i] for i in torch.randint(0, 120, (11,), generator=generator)) for _ in range(16)]
    rows = []
    for number, text in enumerate(texts):
        turns = (Turn("user", (0,)), Turn("assistant", (text,)))
        row = model.processor.row(turns, [1], False, None)
        rows.append(model.processor._example(f"row-{number}", [row], [turns], [[views[number]]], [number]))
    return model, rows, views, texts


def test_every_row_learns_its_end(learner):
    model, rows, _, _ = learner
    end = model.processor.tokenizer.special("<eos>")
    assert (model.processor.collate(rows).labels == end).sum() == 16


@pytest.mark.slow
def test_learns_sixteen_pictures_by_heart(learner):
    model, rows, views, texts = learner
    batch = model.processor.collate(rows)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3, betas=(0.9, 0.95))
    losses = []
    for _ in range(400):
        loss = language_loss(model(batch).logp, batch)
        mean = loss.total / loss.count
        optimizer.zero_grad()
        mean.backward()
        optimizer.step()
        losses.append(mean.item())
    assert losses[200] < 0.05
    assert [vlm.generate(model, "", images=[view]) for view in views] == texts


def test_a_beam_of_one_is_greedy(learner):
    model, _, views, _ = learner
    for view in views[:3]:
        assert vlm.generate(model, "", images=[view], decoding="beam", num_beams=1) == vlm.generate(
            model, "", images=[view]
        )


def test_a_caption_can_fill_every_position(learner):
    model, _, views, _ = learner
    for decoding in ("greedy", "beam"):
        never_ending = vlm.generate(
            model, "", images=[views[0]], decoding=decoding, min_new_tokens=48, max_new_tokens=500
        )
        assert isinstance(never_ending, str)


# -- the published folder -------------------------------------------------------------------------------------------


def published(model, folder: Path, names: str) -> Path:
    """The same weights as a release might name them."""
    tensors = {}
    for ours, parameter in listed(model):
        name = ours
        if names == "sequential":
            for a, b in (
                ("encoder.stages.", "visual.net."),
                ("connector.project", "visual.proj"),
                ("llm.blocks", "decoder.layers"),
                ("llm.tok_emb", "decoder.wte"),
                ("llm.pos_emb", "decoder.wpe"),
                ("llm.ln_f", "decoder.norm"),
                ("llm.", "decoder."),
            ):
                name = name.replace(a, b)
            if name.startswith("visual.net."):
                _, _, stage, kind, leaf = name.split(".")
                name = f"visual.net.{3 * int(stage) + int(kind)}.{leaf}"
            name = (
                name.replace("fc1", "mlp.0")
                .replace("fc2", "mlp.2")
                .replace("qkv", "attn.c_attn")
                .replace("out.", "attn.c_proj.")
            )
        tensors[name] = parameter.detach().clone()
    for stage, channels in enumerate((16, 32, 64)):
        prefix = f"visual.net.{3 * stage + 1}" if names == "sequential" else f"encoder.stages.{stage}.1"
        tensors[f"{prefix}.running_mean"] = torch.zeros(channels).double()
        tensors[f"{prefix}.running_var"] = torch.ones(channels).double()
        tensors[f"{prefix}.num_batches_tracked"] = torch.tensor(7)
    for layer in range(3):
        tensors[f"{'decoder.layers' if names == 'sequential' else 'llm.blocks'}.{layer}.mask"] = torch.tril(
            torch.ones(64, 64)
        )
    tensors["lm_head.weight"] = model.llm.tok_emb.weight.detach().clone()
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    vocabulary = {"<pad>": 0, "<bos>": 1, "<eos>": 2, **{f"t{i}": i for i in range(3, 2048)}}
    Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>")).save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"d_model": 128, "n_heads": 4}))
    return folder


@pytest.mark.parametrize("names", ["ours", "sequential"])
def test_the_published_folder_loads_whatever_its_tensors_are_called(model, batch, tmp_path: Path, names: str):
    loaded = vlm.import_checkpoint("supravl_nano", published(model, tmp_path / "release", names))
    torch.testing.assert_close(all_logits(loaded, batch), all_logits(model, batch), rtol=0, atol=0)
    assert loaded.processor.tokenizer.special("<eos>") == 2
    assert isinstance(vlm.generate(loaded, "", images=[batch.views[0]], max_new_tokens=3), str)


def test_a_head_that_differs_from_the_table_is_refused(model, tmp_path: Path):
    from safetensors.torch import load_file

    folder = published(model, tmp_path / "release", "ours")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="differs from the token table"):
        vlm.import_checkpoint("supravl_nano", folder)
