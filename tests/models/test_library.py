"""The Python calls, and what they refuse."""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

import vlm
from tests.prepared import ROOT
from vlm.contracts.errors import ConfigError, InputError, RunError
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
    turns = (Turn("user", (0,)), Turn("assistant", ("one",)))
    row = model.processor.row(turns, [1], False, None)
    examples = [model.processor._example(str(i), [row], [turns], [[view + i / 10]], [i]) for i in range(4)]
    batch = model.processor.collate(examples)
    loss = language_loss(model.train()(batch).logp, batch)
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
        ({"decoding": "greddy"}, "choose one of greedy, top_k, beam, sampled"),
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

    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)  # what it says depends on the picture
    views = torch.rand(12, 1, 14, 14, generator=torch.Generator().manual_seed(1))
    together = [model.processor.question("", [view]) for view in views]
    alone = [vlm.generate(model, "", images=[view]) for view in views]
    assert len(set(alone)) > 1
    assert [said.text for said in answers(model, together)] == alone


VIEW = torch.rand(1, 1, 14, 14, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("views", "ids", "message"),
    [
        (VIEW, torch.tensor([999]), "the vocabulary has 17"),
        (VIEW, torch.tensor([-1]), "the vocabulary has 17"),
        (VIEW, torch.zeros(50, dtype=torch.long), "more than the model's 36 positions"),
        (VIEW, torch.rand(3), "whole numbers"),
        (VIEW, [1, 2], "ids: list"),
        (VIEW[0], torch.tensor([1]), r"takes \[N, 1, 14, 14\]"),
    ],
)
def test_logits_refuse_what_does_not_fit(model, views, ids, message):
    with pytest.raises(InputError, match=message):
        vlm.logits(model, views, ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 4}, "num_beams means nothing to decoding=greedy; choose decoding=beam"),
        ({"decoding": "beam", "num_beams": "x"}, "give a whole number"),
        ({"decoding": "top_k", "temperature": -1.0}, "strictly positive"),
    ],
)
def test_options_that_mean_nothing_are_refused(model, options, message):
    with pytest.raises(InputError, match=message):
        vlm.generate(model, "", images=[VIEW[0]], **options)


def test_one_string_is_no_list_of_overrides_or_pictures(model):
    with pytest.raises(InputError, match="give a list of overrides"):
        vlm.build_model("experiment=purevlm")
    with pytest.raises(InputError, match="give a list, also for a single picture"):
        vlm.generate(model, "", images="digit.png")


@pytest.fixture
def saved(model, tmp_path):
    from vlm.training.weights import save_model

    save_model(model, tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_cannot_name_code_of_somebody_else(saved):
    config = json.loads((saved / "config.json").read_text())
    config["encoder"]["views"] = {"_target_": "os.system", "command": f"touch {saved}/ran"}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"os\.system"):
        vlm.load_model(saved)
    assert not (saved / "ran").exists()


def test_a_damaged_description_of_a_model_is_refused(saved):
    config = json.loads((saved / "config.json").read_text())
    del config["llm"]["width"]
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"llm\.width"):
        vlm.load_model(saved)


def test_a_stream_of_requests_goes_on_after_a_bad_line(saved, tmp_path, capsys):
    from vlm.requests import answer

    Image.new("L", (28, 28), 90).save(tmp_path / "digit.png")
    good = json.dumps({"image": str(tmp_path / "digit.png"), "id": "a"})
    lines = [good, '{"prompt": 7, "image": "x.png"}', '{"image": "a\\u0000b"}', "[" * 100_000, "{}", "no json", good]
    config = {"model": str(saved), "requests": "stdin", "image": None, "prompt": "", "decoding": "greedy", "seed": 0}
    config |= dict.fromkeys(("video", "mode", "token_budget", "max_new_tokens", "num_beams", "top_k", "temperature"))
    with pytest.raises(RunError, match="5 requests could not be answered"):
        answer(config, lines)
    replies = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [reply["line"] for reply in replies] == [1, 2, 3, 4, 5, 6, 7]
    assert ["error" in reply for reply in replies] == [False, True, True, True, True, True, False]
    assert replies[0]["answer"] == replies[6]["answer"]


def test_a_request_is_refused_or_drawn_by_its_keys_on_the_command_line(saved, tmp_path, capsys):
    from vlm.requests import answer

    Image.new("L", (28, 28), 90).save(tmp_path / "digit.png")
    config = {"model": str(saved), "requests": None, "image": str(tmp_path / "digit.png"), "prompt": "", "seed": 3}
    config |= dict.fromkeys(("video", "mode", "token_budget", "max_new_tokens", "num_beams", "top_k", "temperature"))
    with pytest.raises(InputError, match=r"^token_budget: 16 is given, but this encoder gives every picture 1 tokens"):
        answer({**config, "decoding": "greedy", "token_budget": 16}, [])
    said = []
    for seed in (3, 3, 4, 5, 6, 7):
        answer({**config, "decoding": "sampled", "seed": seed, "temperature": 3.0}, [])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert len(set(said)) > 1
