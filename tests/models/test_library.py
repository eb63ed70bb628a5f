"""The Python calls, and what they refuse."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch
from PIL import Image

import vlm
from tests.prepared import ROOT
from vlm.contracts.errors import ConfigError, InputError
from vlm.contracts.sample import Turn
from vlm.losses.language import language_loss


def test_importing_the_package_loads_no_torch():
    code = "import sys, vlm; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match="build_model, generate"):
        vlm.build_modle  # noqa: B018


def test_mistakes_are_told_all_at_once():
    with pytest.raises(ConfigError) as refused:
        vlm.build_model(["experiment=purevlm", "encoder.rnak=3", "llm.heads=5", "seed=-1"])
    assert len(refused.value.problems) == 3
    assert "did you mean 'rank'" in str(refused.value)


COMBINATIONS = [
    *itertools.product(("bilinear", "cnn", "vit_nano"), ("linear", "bilinear_repeat"), ("tiny_tpa", "gpt2_nano"))
]


def built(words: list[str]):
    try:
        return vlm.build_model(words), ""
    except ConfigError as refused:
        return None, str(refused)


@pytest.mark.parametrize(("encoder", "connector", "llm"), COMBINATIONS)
def test_parts_combine_by_override_alone_or_say_why_not(encoder, connector, llm):
    words = ["data=mnist", f"encoder={encoder}", f"connector={connector}", f"llm={llm}", "phase.max_steps=1"]
    model, refusal = built(words)
    if model is None:
        assert "positions; choose" in refusal
        model = vlm.build_model([*words, "connector.repeat=1"])
    if not model.processor.tokenizer.ready:
        model.processor.tokenizer.fit(["one", "two"])
    view = torch.rand(model.processor.views.spec.channels, *(model.processor.views.spec.height,) * 2)
    row = model.processor.row([Turn("user", (0,)), Turn("assistant", ("one",))], [1], False, None)
    batch = model.processor.collate([model.processor._example(str(i), row, [[view + i / 10]], [i]) for i in range(4)])
    loss = language_loss(model.train()(batch).logp, batch.labels)
    (loss.total / loss.count).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert isinstance(vlm.generate(model.eval(), "", images=[view]), str)


@pytest.fixture(scope="module")
def model():
    return vlm.build_model(["experiment=purevlm"])


def test_generation_takes_pictures_paths_and_views(model, tmp_path):
    picture = Image.effect_noise((28, 28), 90)
    picture.save(tmp_path / "digit.png")
    views = model.processor.views(picture)
    said = {
        vlm.generate(model, "", images=[image])
        for image in (picture, tmp_path / "digit.png", str(tmp_path / "digit.png"), views[0])
    }
    assert len(said) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": ["nothing.png"]}, "nothing.png: the picture cannot be read"),
        ({"decoding": "greddy"}, "choose one of greedy, top_k, beam"),
        ({"max_new_tokenz": 3}, "unknown generation option max_new_tokenz"),
        ({"video": "clip.mp4"}, "not trained on clips"),
    ],
)
def test_generation_refuses_by_name(model, arguments, message):
    with pytest.raises(InputError, match=message):
        vlm.generate(model, "", **{"images": [torch.zeros(1, 14, 14)], **arguments})


def test_an_untrained_captioner_says_that_it_has_no_tokenizer():
    with pytest.raises(InputError, match="has no tokenizer yet"):
        vlm.generate(vlm.build_model(["experiment=supravl_nano"]), "", images=[torch.zeros(3, 112, 112)])


def test_sampling_follows_the_seed(model):
    view = torch.rand(1, 14, 14, generator=torch.Generator().manual_seed(0))

    def said(seed: int) -> list[str]:
        torch.manual_seed(seed)
        return [vlm.generate(model, "", images=[view], decoding="top_k", temperature=3.0) for _ in range(8)]

    assert said(0) == said(0)
    assert len(set(said(0))) > 1


def test_answers_do_not_depend_on_their_neighbours(model):
    from vlm.models.generation import answers

    views = torch.rand(6, 1, 14, 14, generator=torch.Generator().manual_seed(1))
    together = model.processor.collate([model.processor.question("", [view]) for view in views])
    assert answers(model, together) == [vlm.generate(model, "", images=[view]) for view in views]
