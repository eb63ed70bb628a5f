"""Language models from local folders: the numbers of the models' own library, in rows, packed rows and generation."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.cache_utils import DynamicCache

import vlm
from tests.data_prep.conftest import encoded, picture
from tests.hf_folder import CHATML, TAGGED, write_model, write_tokenizer
from vlm.contracts.batch import IGNORE
from vlm.contracts.errors import ConfigError, InputError, Mismatch, RunError
from vlm.contracts.sample import Medium, Sample, Turn
from vlm.losses.language import language_loss
from vlm.models.llms.hf_causal import FAMILIES, HFCausal
from vlm.models.mask import Spans
from vlm.models.recompute import recompute
from vlm.requests import answer
from vlm.training.weights import own_tensors, save_model, whole

IDS = torch.randint(3, 440, (2, 11), generator=torch.Generator().manual_seed(0))
PLACES = torch.arange(11).expand(2, -1)


def made(folder, family: str = "llama", **changes) -> tuple:
    theirs = write_model(folder, family, **changes)
    ours = HFCausal(str(folder)).eval()
    ours.load_pretrained()
    return theirs, ours


def logits(model: HFCausal, ids, places, mask=None, cache=None) -> torch.Tensor:
    return model.logits(model(model.embed(ids), places, mask, cache))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_family_gives_the_numbers_of_its_own_library(tmp_path, family):
    """In rows, in a packed row, and step by step from a cache; four heads share two of keys and values."""
    theirs, ours = made(tmp_path, family)
    wanted = theirs(IDS).logits
    torch.testing.assert_close(logits(ours, IDS, PLACES), wanted, rtol=0, atol=2e-5)
    packed, places = torch.cat([IDS[0], IDS[1, :7]])[None], torch.cat([PLACES[0], PLACES[1, :7]])[None]
    spans = Spans.of(torch.tensor([[0] * 11 + [1] * 7]), torch.tensor([-1, -1]))
    for mask in (spans, spans.dense()):
        together = logits(ours, packed, places, mask)[0]
        torch.testing.assert_close(together, torch.cat([wanted[0], wanted[1, :7]]), rtol=0, atol=2e-5)
    cache = DynamicCache()
    steps = [
        logits(ours, IDS[:, part], PLACES[:, part], None, cache) for part in (slice(6), slice(6, 10), slice(10, 11))
    ]
    torch.testing.assert_close(torch.cat(steps, 1), wanted, rtol=0, atol=2e-5)
    torch.testing.assert_close(ours(ours.embed(IDS), PLACES, keep=3), ours(ours.embed(IDS), PLACES)[:, -3:])


def test_gradients_are_those_of_its_own_library_with_and_without_recomputation(tmp_path):
    theirs, ours = made(tmp_path)
    wanted = theirs.train()(IDS, labels=IDS).loss
    wanted.backward()
    for again in (False, True):
        if again:
            recompute(ours)
        ours.train().zero_grad()
        hidden = ours(ours.embed(IDS), PLACES)
        loss = -ours.logp(hidden[:, :-1], IDS[:, 1:]).mean()
        loss.backward()
        torch.testing.assert_close(loss, wanted)
        for name, parameter in theirs.named_parameters():
            torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-6)


def test_a_branch_sees_its_prefix_and_not_its_neighbour(tmp_path):
    _, ours = made(tmp_path)
    row = torch.cat([IDS[0, :6], IDS[0, 5:9], IDS[0, 5:6], IDS[1, :3]])[None]
    places = torch.tensor([[*range(6), *range(5, 9), *range(5, 9)]])
    row, places = torch.cat([row[:, :5], row[:, 6:]], 1), torch.cat([places[:, :5], places[:, 6:]], 1)
    spans = Spans.of(torch.tensor([[0] * 5 + [1] * 4 + [2] * 4]), torch.tensor([-1, 0, 0]))
    with torch.no_grad():
        together = logits(ours, row, places, spans)[0]
        first = logits(ours, IDS[:1, :9], PLACES[:1, :9])[0]
        second = logits(ours, torch.cat([IDS[0, :6], IDS[1, :3]])[None], PLACES[:1, :9])[0]
    torch.testing.assert_close(together[:9], first, rtol=0, atol=2e-5)
    torch.testing.assert_close(together[9:], second[5:], rtol=0, atol=2e-5)


def test_a_tied_head_is_one_table(tmp_path):
    theirs, ours = made(tmp_path, tie_word_embeddings=True)
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"] + 1}, tmp_path / "model.safetensors")
    with pytest.raises(
        InputError, match=r"(lm_head|embed_tokens).weight differs from the table that config.json ties it to"
    ):
        ours.load_pretrained()


def test_sharded_files_are_read_too(tmp_path):
    theirs = write_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    ours = HFCausal(str(tmp_path)).eval()
    ours.load_pretrained()
    torch.testing.assert_close(logits(ours, IDS, PLACES), theirs(IDS).logits)
    next(tmp_path.glob("model-00002-*")).unlink()
    with pytest.raises(InputError, match=r"lacks model-00002-of.*which model.safetensors.index.json names"):
        ours.load_pretrained()


def test_positions_stay_exact_in_half_precision(tmp_path):
    _, ours = made(tmp_path)
    before = ours.model.rotary_emb.inv_freq.clone()
    ours.to(torch.bfloat16)
    assert ours.lm_head.weight.dtype == torch.bfloat16
    assert torch.equal(ours.model.rotary_emb.inv_freq, before)


def test_a_description_needs_no_weights_and_knows_windows(tmp_path):
    write_model(tmp_path, "mistral", sliding_window=32)
    assert HFCausal.describe(str(tmp_path)).positions == 32
    write_model(tmp_path, "qwen2", sliding_window=32)
    assert HFCausal.describe(str(tmp_path)).positions == 128
    write_model(tmp_path, "qwen2", sliding_window=32, use_sliding_window=True, max_window_layers=0)
    assert HFCausal.describe(str(tmp_path)).positions == 32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gemma2"}, "is of type 'gemma2'; supported: llama, mistral"),
        ({"quantization_config": {"bits": 4}}, "quantized weights; give the folder of the unquantized"),
        ({"vocab_size": None}, "does not say vocab_size"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path, changes, message):
    write_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(Mismatch, match=message):
        HFCausal(str(tmp_path))


def test_a_folder_that_is_not_there_or_not_complete_says_what_is_needed(tmp_path):
    with pytest.raises(Mismatch, match=r"nowhere is no folder \(seen from .*give a folder with config.json"):
        HFCausal.describe(str(tmp_path / "nowhere"))
    with pytest.raises(Mismatch, match=r"has no config.json"):
        HFCausal.describe(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(Mismatch, match="is not valid JSON"):
        HFCausal.describe(str(tmp_path))


def test_weights_that_do_not_fit_are_named(tmp_path):
    write_model(tmp_path)
    ours = HFCausal(str(tmp_path))
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    norm = tensors.pop("model.norm.weight")
    save_file({**tensors, "model.extra": norm, "lm_head.weight": norm.clone()}, file)
    with pytest.raises(InputError, match=r"model.extra is not part(.|\n)*model.norm.weight is missing") as refused:
        ours.load_pretrained()
    assert "lm_head.weight has shape [32], the model needs [448, 32]" in str(refused.value)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"model.safetensors cannot be read"):
        ours.load_pretrained()
    file.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"holds pytorch_model.bin, but neither model.safetensors nor"):
        ours.load_pretrained()


TEXT_ONLY = ["encoder=none", "connector=none"]


@pytest.fixture
def folder(tmp_path):
    write_model(tmp_path / "chat")
    write_tokenizer(tmp_path / "chat", CHATML)
    return tmp_path / "chat"


def build(folder, *words: str):
    common = ["llm=hf_causal", f"llm.path={folder}", "llm.template.max_tokens=64", "data=mnist", "phase.max_steps=1"]
    model = vlm.build_model([*common, *words])
    model.llm.load_pretrained()
    return model


def conversation(answer: str = "a red kite", data: bytes | None = None) -> Sample:
    media = () if data is None else (Medium("image", data, hashlib.sha256(data).hexdigest()),)
    return Sample("k", (Turn("user", (*range(len(media)), "what is this?")), Turn("assistant", (answer,))), media)


def test_text_alone_trains_a_language_model(folder):
    model = build(folder, *TEXT_ONLY).train()
    examples = [model.processor.example(conversation(answer)) for answer in ("a red kite", "three books, I think")]
    batch = model.processor.collate(examples)
    loss = language_loss(model(batch).logp, batch)
    loss.total.backward()
    assert int(loss.count) == int((batch.labels != IGNORE).sum())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_same_folder_with_an_encoder_is_a_vision_language_model(folder):
    model = build(folder, "encoder=cnn", "connector=linear")
    model.encoder.train()
    pictures = [encoded(picture(seed)) for seed in range(2)]
    seen = [conversation(data=data) for data in pictures]
    batch = model.processor.collate([model.processor.example(sample) for sample in seen])
    logp = model(model.processor.finish(batch, torch.float32)).logp
    assert (logp[0] - logp[1]).abs().max() > 1e-3  # what is seen is heard
    (-logp.sum()).backward()
    assert all(p.grad is not None for p in model.connector.parameters())
    assert isinstance(vlm.generate(model, "what?", images=[picture(0)], max_new_tokens=4), str)


def test_a_picture_is_refused_by_a_model_that_reads_only(folder):
    model = build(folder, *TEXT_ONLY)
    with pytest.raises(InputError, match=r"^media_unexpected: .*encoder=none"):
        model.processor.question("what?", [Image.new("L", (8, 8))])


def test_a_connector_without_tokens_goes_with_no_encoder_only(folder):
    with pytest.raises(ConfigError, match="connector=none passes no tokens on; choose encoder=none too"):
        build(folder, "encoder=cnn", "connector=none")


def test_a_wrong_path_is_one_problem(tmp_path):
    with pytest.raises(ConfigError) as refused:
        build(tmp_path / "nowhere", *TEXT_ONLY)
    assert [problem.key for problem in refused.value.problems] == ["llm.path"]


@pytest.mark.parametrize("template", [CHATML, TAGGED])
def test_a_saved_model_needs_nothing_but_its_own_folder(folder, tmp_path, template):
    write_tokenizer(folder, template)
    model = build(folder, *TEXT_ONLY)
    said = vlm.generate(model, "what is this?", max_new_tokens=6)
    ids = torch.tensor([5, 6, 7])
    wanted = vlm.logits(model, torch.zeros(0, 1, 1, 1), ids)
    save_model(model, tmp_path / "model")
    shutil.rmtree(folder)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    again = vlm.load_model(tmp_path / "elsewhere")
    assert vlm.generate(again, "what is this?", max_new_tokens=6) == said
    assert torch.equal(vlm.logits(again, torch.zeros(0, 1, 1, 1), ids), wanted)
    save_model(again, tmp_path / "elsewhere")  # over itself: its own small files are the source
    assert vlm.generate(vlm.load_model(tmp_path / "elsewhere"), "what is this?", max_new_tokens=6) == said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere"]


def test_a_model_whose_folder_went_away_says_so_and_keeps_the_older_copy(folder, tmp_path):
    model = build(folder, *TEXT_ONLY)
    save_model(model, tmp_path / "model")
    shutil.rmtree(folder)
    with pytest.raises(RunError, match="from which the llm was made, is gone"):
        save_model(model, tmp_path / "model")
    vlm.load_model(tmp_path / "model")


def test_a_damaged_copy_is_refused_as_a_whole(folder, tmp_path):
    save_model(build(folder, *TEXT_ONLY), tmp_path / "model")
    (tmp_path / "model" / "llm" / "config.json").unlink()
    with pytest.raises(InputError, match=r"is not complete: .*has no config.json"):
        vlm.load_model(tmp_path / "model")


def test_all_ranks_gather_and_one_writes(folder, tmp_path, monkeypatch):
    model = build(folder, *TEXT_ONLY)
    asked = []
    monkeypatch.setattr("vlm.training.weights.whole", lambda tensor: asked.append(tensor) or whole(tensor))
    save_model(model, tmp_path / "model", write=False)
    assert len(asked) == len(own_tensors(model.llm))
    assert not (tmp_path / "model").exists()


def test_a_question_without_a_picture_is_answered_from_the_command_line(folder, tmp_path, capsys):
    model = build(folder, *TEXT_ONLY)
    save_model(model, tmp_path / "model")
    config = {"model": str(tmp_path / "model"), "requests": None, "image": None, "prompt": "what?", "seed": 0}
    config |= dict.fromkeys(("video", "mode", "token_budget", "num_beams", "top_k", "temperature"))
    answer({**config, "decoding": "greedy", "max_new_tokens": 5}, [])
    assert capsys.readouterr().out == vlm.generate(model, "what?", max_new_tokens=5) + "\n"
    with pytest.raises(InputError, match=r"image: give image=FILE, video=FILE, prompt="):
        answer({**config, "decoding": "greedy", "max_new_tokens": 5, "prompt": ""}, [])
