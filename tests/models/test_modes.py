"""A foveated model in use: answers about clips in each mode, and what is said of modes that there are not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

import vlm
from tests.data.clip_maker import clip
from vlm.contracts.errors import InputError
from vlm.models.fusion.foveated import Foveated
from vlm.models.generation import answers

WORDS = [
    "experiment=purevlm",
    "encoder=dinov2_small",
    "encoder.width=32",
    "encoder.layers=2",
    "encoder.heads=2",
    "encoder.mlp=64",
    "encoder.grid=4",
    "+encoder.views.frames=4",
    "+encoder.views.still=3",
    "encoder.views.size=56",
    "connector=foveal",
    "connector.query_width=16",
    "fusion=foveated",
    "llm.max_positions=64",
    "phase.aux.reconstruction=null",
    "phase.trainable={encoder: 1.0e-3, connector: 1.0e-3, llm: 1.0e-3}",
]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    found = vlm.build_model(WORDS)
    with torch.no_grad():
        found.connector.steer.weight.normal_()
    return found


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "film.mp4"
    clip(40, path=path)
    return path


@pytest.mark.parametrize("mode", ["coarse_only", "coarse_fine", "autoregressive"])
def test_a_clip_is_answered_in_every_mode_as_by_the_whole_row(model, film, mode):
    """Decoding from cached keys says what reading the whole row anew would say."""
    said = vlm.generate(model, "", video=film, mode=mode, max_new_tokens=5)
    assert isinstance(said, str)
    assert model.fusion.mode == "coarse_fine"  # its own
    views = model.processor.views
    from vlm.data.clips import decode_clip

    taken = decode_clip(film, "film", views.spec.frames, least=views.least)
    example = model.processor.question("", [taken])
    with vlm.library.in_mode(model, mode):
        batch = model.processor.collate([example])
        embeds, _ = model.fusion(batch, model.encoder, model.connector, model.llm)
        ids = []
        with torch.no_grad():
            for _ in range(5):
                positions = torch.arange(embeds.shape[1]).unsqueeze(0)
                best = model.llm.logits(model.llm(embeds, positions))[0, -1].argmax()
                if int(best) in (model.processor.tokenizer.special(t) for t in ("<eos>", "<bos>")):
                    break
                ids.append(int(best))
                embeds = torch.cat([embeds, model.llm.embed(best.view(1, 1))], 1)
    assert model.processor.tokenizer.decode(ids) == said


def test_modes_see_otherwise(model, film):
    views = torch.randn(4, 3, 56, 56)
    ids = torch.tensor([1, 2, 3])
    coarse, fine, turn = (vlm.logits(model, views, ids, mode=mode) for mode in Foveated.modes)
    assert not torch.allclose(coarse, fine)
    assert not torch.allclose(fine, turn)
    torch.testing.assert_close(vlm.logits(model, views, ids), fine, rtol=0, atol=0)
    assert vlm.logits(model, views, ids, visual=True).shape[0] == 7


def test_a_still_picture_is_shown_as_equal_frames_encoded_once(model):
    asked = model.processor.question("", [Image.new("RGB", (60, 40), "red")])
    assert len(asked.views) == 1
    assert len(asked.slots) == 3
    many = replace(asked, views=asked.views * 3, slots=(0, 1, 2), pictures=asked.pictures * 3)
    one, three = answers(model, [asked], max_new_tokens=4), answers(model, [many], max_new_tokens=4)
    assert one == three


def test_an_unknown_mode_is_refused_with_those_that_there_are(model):
    with pytest.raises(InputError, match=r"mode='fine': choose one of coarse_only, coarse_fine, autoregressive"):
        vlm.generate(model, "", mode="fine")


def test_a_model_without_modes_or_clips_says_so(film):
    plain = vlm.build_model(["experiment=purevlm"])
    with pytest.raises(InputError, match="no modes; leave mode out"):
        vlm.generate(plain, "", images=[Image.new("L", (28, 28))], mode="coarse_fine")
    with pytest.raises(InputError, match="video: this model was not trained on clips"):
        vlm.generate(plain, "", video=film)
