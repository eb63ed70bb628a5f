"""Text towers and the model of two towers: padding, counts, local folders, unit rows."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from vlm.contracts.batch import IGNORE, PADDING, Batch
from vlm.contracts.errors import InputError, Mismatch, RunError
from vlm.contracts.vision import EncoderOutput, ViewSpec
from vlm.models.encoders.cnn import CNN
from vlm.models.encoders.vit import ViT
from vlm.models.hf_text import FAMILIES, HFText
from vlm.models.text_tower import TextTower
from vlm.models.two_tower import TwoTower, summary

LENGTHS = torch.tensor([4, 9, 1, 7])
INSIDE = torch.arange(9) < LENGTHS.unsqueeze(1)
IDS = torch.randint(5, 60, (4, 9), generator=torch.Generator().manual_seed(0)).masked_fill(~INSIDE, 0)
VIEWS = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def tower(causal: bool = True, layers: int = 2) -> TextTower:
    torch.manual_seed(0)
    made = TextTower(60, 16, layers, 4, 32, 12, causal)
    for parameter in made.parameters():  # large enough to tell mistakes
        torch.nn.init.normal_(parameter, std=0.3)
    return made.double()


def two_tower(encoder=None, **changes) -> TwoTower:
    torch.manual_seed(0)
    encoder = encoder or ViT(ViewSpec(3, 16, 16), patch=8, width=8, layers=1, heads=2, mlp=16)
    keys = {"width": 10, "temperature": 0.07, "scale_limit": 100.0, "bias": None} | changes
    return TwoTower(encoder=encoder, text=tower().float(), config={}, **keys)


def batch(**changes) -> Batch:
    segment = torch.arange(4).unsqueeze(1).expand(4, 9).masked_fill(~INSIDE, PADDING)
    fields = {
        "ids": IDS, "labels": torch.full_like(IDS, IGNORE), "positions": torch.arange(9).expand(4, 9),
        "segment": segment, "parent": torch.full((4,), -1), "sample": torch.arange(4), "views": VIEWS,
        "slots": torch.empty(0, 2, dtype=torch.long), "pictures": torch.arange(4),
    }  # fmt: skip
    return Batch(**(fields | changes))


def reference(made: TextTower, ids: torch.Tensor) -> torch.Tensor:
    """One caption through torch's own layers, all tokens through all of them."""
    x = (made.tok_emb(ids) + made.pos_emb(torch.arange(len(ids)))).unsqueeze(0)
    for block in made.blocks:
        layer = torch.nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", batch_first=True, norm_first=True).double()
        layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias = block.qkv.weight, block.qkv.bias
        layer.self_attn.out_proj, layer.linear1, layer.linear2 = block.out, block.fc1, block.fc2
        layer.norm1, layer.norm2 = block.ln1, block.ln2
        mask = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1) if made.causal else None
        x = layer(x, mask)
    return made.ln_f(x)[0, -1]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_caption_is_its_last_token_as_torchs_own_layers_see_it(causal, layers):
    made = tower(causal, layers)
    found = made(IDS, INSIDE)
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(found[row], reference(made, IDS[row, :length]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_never_changes_a_number_nor_a_gradient(causal):
    made = tower(causal)
    found = {}
    for filler, longer in ((0, 0), (59, 3)):
        inside = torch.nn.functional.pad(INSIDE, (0, longer))
        ids = torch.nn.functional.pad(IDS, (0, longer)).masked_fill(~inside, filler)
        made.zero_grad()
        states = made(ids, inside)
        states.square().sum().backward()
        found[filler] = [states.detach(), *(parameter.grad.clone() for parameter in made.parameters())]
    for one, other in zip(*found.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_tower_of_keurals_recipe_has_23_million_parameters():
    """32,768 x 384 + 64 x 384 + 6 (12 x 384^2 + 13 x 384) + 2 x 384."""
    with torch.device("meta"):
        made = TextTower(32768, 384, 6, 6, 1536, 64, True)
    assert sum(parameter.numel() for parameter in made.parameters()) == 23_255_040


def test_heads_must_divide_the_width():
    with pytest.raises(Mismatch, match="5 heads do not divide width 384"):
        TextTower.describe(32768, 384, 6, 5, 1536, 64, True)


# -- a text model from a local folder -------------------------------------------------------------------------


def folder(path, family: str):
    sizes = {
        "vocab_size": 64, "hidden_size": 16, "dim": 16, "intermediate_size": 32, "hidden_dim": 32,
        "num_hidden_layers": 2, "n_layers": 2, "num_attention_heads": 4, "n_heads": 4, "embedding_size": 16,
        "max_position_embeddings": 24, "eos_token_id": 63,
    }  # fmt: skip
    if family not in ("clip_text_model",):
        sizes["pad_token_id"] = 1
    known = AutoConfig.for_model(family)
    config = AutoConfig.for_model(family, **{k: v for k, v in sizes.items() if hasattr(known, k)})
    torch.manual_seed(3)
    theirs = AutoModel.from_config(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(path)
    return theirs


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_family_gives_the_states_of_its_own_library_whatever_the_padding(tmp_path, family):
    theirs = folder(tmp_path, family)
    for pooling in ("eos", "first", "mean"):
        ours = HFText(str(tmp_path), pooling).eval()
        assert not torch.allclose(next(ours.parameters()), next(theirs.parameters()))
        ours.load_pretrained()
        assert ours.spec.width == 16
        assert ours.spec.positions == (22 if family in ("mpnet", "roberta", "xlm-roberta") else 24)
        found = ours(IDS, INSIDE)
        for row, length in enumerate(LENGTHS):
            states = theirs(IDS[row : row + 1, :length]).last_hidden_state[0]
            wanted = {"eos": states[-1], "first": states[0], "mean": states.mean(0)}[pooling]
            torch.testing.assert_close(found[row], wanted, rtol=0, atol=2e-5)


def test_every_weight_of_a_text_model_has_a_gradient(tmp_path):
    for family in FAMILIES:
        folder(tmp_path / family, family)
        ours = HFText(str(tmp_path / family), "eos")
        ours(IDS, INSIDE).sum().backward()
        assert [name for name, parameter in ours.named_parameters() if parameter.grad is None] == []


def test_a_folder_whose_weights_are_not_all_there_is_refused(tmp_path):
    folder(tmp_path, "bert")
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("embeddings.word_embeddings.weight")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"text.path: .*lack embeddings.word_embeddings.weight"):
        HFText(str(tmp_path), "eos").load_pretrained()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"text.path: .*cannot be read"):
        HFText(str(tmp_path), "eos").load_pretrained()


def test_a_folder_of_another_kind_is_refused_by_name(tmp_path):
    with pytest.raises(Mismatch, match="has no config"):
        HFText.describe(str(tmp_path), "eos")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(Mismatch, match="is of type 'llama'; supported: bert"):
        HFText.describe(str(tmp_path), "eos")


# -- both towers ----------------------------------------------------------------------------------------------


def test_pictures_and_captions_become_unit_rows_of_one_space():
    model = two_tower()
    seen = model(batch())
    assert seen.image.shape == seen.text.shape == (4, 10)
    torch.testing.assert_close(torch.cat([seen.image, seen.text]).norm(dim=1), torch.ones(8))
    torch.testing.assert_close(seen.text, model.text_rows(IDS, INSIDE))
    torch.testing.assert_close(seen.image, model.image_rows(VIEWS)[0])


def test_half_precision_gives_rows_of_float32():
    seen = two_tower().bfloat16()(batch(views=VIEWS.bfloat16()))
    assert seen.image.dtype == seen.text.dtype == torch.float32


def test_an_encoder_without_a_summary_gives_the_mean_of_its_tokens():
    tokens = torch.arange(24.0).view(2, 3, 4)
    torch.testing.assert_close(summary(EncoderOutput(tokens)), tokens.mean(1))
    mask = torch.tensor([[True, True, False], [False, True, False]])
    wanted = torch.stack([tokens[0, :2].mean(0), tokens[1, 1]])
    torch.testing.assert_close(summary(EncoderOutput(tokens, mask=mask)), wanted)
    pooled = torch.ones(2, 4)
    assert summary(EncoderOutput(tokens, mask=mask, pooled=pooled)) is pooled
    cnn = CNN(ViewSpec(3, 16, 16), channels=[4, 8], grid=2)
    assert two_tower(cnn)(batch()).image.shape == (4, 10)


def test_the_scale_starts_at_the_temperature_and_never_passes_its_limit():
    joint = two_tower().joint
    assert float(joint.log_scale.detach().exp()) == pytest.approx(1 / 0.07)
    joint.log_scale.data.fill_(7.0)
    joint.clamp()
    assert float(joint.log_scale.detach().exp()) == pytest.approx(100)
    assert joint.bias is None
    assert two_tower(bias=-10.0).joint.bias.tolist() == [-10.0]
    assert two_tower(temperature=0.001).joint.log_scale.item() == pytest.approx(math.log(100))


def test_pictures_that_are_more_than_captions_are_no_pairs():
    with pytest.raises(RunError, match="5 views for 4 captions"):
        two_tower()(batch(views=torch.cat([VIEWS, VIEWS[:1]])))
