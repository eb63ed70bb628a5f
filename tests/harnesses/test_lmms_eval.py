"""A saved model of ours in lmms-eval: our part of it anywhere, and its own evaluator where it can be installed."""

from __future__ import annotations

import json
import sys
import tomllib
import types
from pathlib import Path

import pytest
from PIL import Image

import vlm
from tests.harnesses.conftest import COLOURS, square
from tests.harnesses.environment import ROOT, install, run
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Turn
from vlm.harnesses import lmms_eval
from vlm.harnesses.lmms_eval import Answering, decoding_of, until
from vlm.models.likelihood import log_probabilities


def test_temperature_0_is_greedy_and_what_only_drawing_reads_is_left_out() -> None:
    asked = {
        "max_new_tokens": 16,
        "temperature": 0,
        "top_p": 1.0,
        "num_beams": 1,
        "do_sample": False,
        "until": ["\n\n"],
    }
    assert decoding_of(asked) == ("greedy", {"max_new_tokens": 16}, ["\n\n"])
    assert decoding_of({"temperature": 0, "do_sample": True}) == ("greedy", {}, [])
    assert decoding_of({}) == ("greedy", {}, [])


def test_a_temperature_draws_unless_do_sample_says_no() -> None:
    assert decoding_of({"temperature": 0.7, "top_p": 0.9})[:2] == ("top_k", {"temperature": 0.7, "top_p": 0.9})
    assert decoding_of({"do_sample": True}) == ("top_k", {"temperature": 1.0}, [])
    assert decoding_of({"temperature": 0.2, "do_sample": False})[0] == "greedy"


def test_several_beams_search_as_transformers_does_by_itself() -> None:
    decoding, options, _ = decoding_of({"num_beams": 3, "max_new_tokens": 8})
    assert decoding == "beam"
    assert options == {"num_beams": 3, "length_penalty": 1.0, "early_stopping": False, "max_new_tokens": 8}


def test_a_single_text_that_ends_the_answer_is_a_list_of_one() -> None:
    assert decoding_of({"until": "Q:"})[2] == ["Q:"]


@pytest.mark.parametrize("name", ["seed", "visual_cot", "stop_sequences", "max_agentic_steps"])
def test_an_option_without_a_meaning_here_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"some_task: generation option {name}"):
        decoding_of({name: 1}, "some_task")


def test_beams_that_draw_are_refused() -> None:
    with pytest.raises(InputError, match="num_beams=2 together with do_sample"):
        decoding_of({"num_beams": 2, "do_sample": True})


def test_an_answer_ends_before_the_first_of_the_texts_that_end_it() -> None:
    assert until("yes\n\nQ: no", ["Q:", "\n\n"]) == "yes"
    assert until("yes", ["Q:", ""]) == "yes"


class Hook:
    def add_partial(self, *what: object) -> None: ...


def answering(saved: Path, docs: list[dict[str, object]]) -> Answering:
    """What the harness's base class and evaluator add to ours."""
    ours = Answering(saved, device="cpu")
    ours.cache_hook, ours.task_dict = Hook(), {"task": {"test": docs}}  # type: ignore[attr-defined]
    return ours


def asking(*arguments: object) -> types.SimpleNamespace:
    return types.SimpleNamespace(args=arguments)


def shown(doc: dict[str, Image.Image]) -> list[Image.Image]:
    return [doc["image"]]


def test_answers_are_those_of_generate_in_the_order_of_the_requests(saved: Path) -> None:
    ours = answering(saved, [{"image": square(colour)} for colour in COLOURS])
    requests = [asking("What is it?", {"max_new_tokens": 5}, shown, row, "task", "test") for row in (2, 0)]
    said = ours.generate_until(requests)
    model = vlm.load_model(saved)
    assert said == [vlm.generate(model, "What is it?", [square(COLOURS[row])], max_new_tokens=5) for row in (2, 0)]
    assert all(said)


def test_a_task_without_pictures_is_asked_with_text_alone(saved: Path) -> None:
    (said,) = answering(saved, [{}]).generate_until([asking("What?", {"max_new_tokens": 5}, None, 0, "task", "test")])
    assert said == vlm.generate(vlm.load_model(saved), "What?", max_new_tokens=5)


def test_a_clip_or_sound_is_refused_with_its_row(saved: Path) -> None:
    with pytest.raises(InputError, match=r"task, row 0: str is no picture"):
        answering(saved, [{}]).generate_until([asking("What?", {}, lambda doc: ["a.mp4"], 0, "task", "test")])


def test_more_than_one_at_a_time_and_several_rounds_are_refused(saved: Path) -> None:
    with pytest.raises(InputError, match="batch_size=8"):
        Answering(saved, batch_size=8)
    with pytest.raises(InputError, match="one question at a time"):
        Answering(saved, device="cpu").generate_until_multi_round([])


def test_without_the_package_the_class_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmms_eval", None)
    lmms_eval._saved_model.cache_clear()
    with pytest.raises(InputError, match="pip install lmms-eval"):
        lmms_eval.SavedModel  # noqa: B018


def registered(home: Path) -> None:
    """The entry points of pyproject.toml, as an installation of this project leaves them."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lmms_eval.models"]
    (site,) = home.glob("lib/python*/site-packages")
    info = site / "vlm-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vlm\nVersion: 0\n")
    lines = ["[lmms_eval.models]", *(f"{name} = {target}" for name, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(900)
def test_lmms_eval_evaluates_a_saved_model_by_its_registered_name(saved: Path, tmp_path: Path) -> None:
    needed = (
        "accelerate",
        "datasets",
        "evaluate",
        "jsonlines",
        "loguru",
        "pandas",
        "pytablewriter",
        "sacrebleu",
        "tenacity",
    )
    python = install(tmp_path / "venv", *needed, alone=("lmms-eval==0.7.3",))
    registered(tmp_path / "venv")
    found = json.loads(
        run(python, "-m", "tests.harnesses.in_lmms_eval", saved, tmp_path, cwd=tmp_path).splitlines()[-1]
    )
    assert found["class"] == "vlm.harnesses.lmms_eval.SavedModel"
    model = vlm.load_model(saved)
    right = 0
    for row, colour in enumerate(COLOURS):
        gold = ["yes", "no"][row % 2]
        said = vlm.generate(model, f"Is it {colour}?\nAnswer.", [square(colour)], max_new_tokens=4)
        assert found["answers"][row] == ["pope", str(row), str(10 + row), said.split("\n\n")[0], {"label": gold}]
        improbable = [pair[0] for pair in found["choice"][row]]
        assert improbable == pytest.approx(nats(model, f"Is it {colour}?", colour), abs=1e-4)
        right += ["yes", "no"][improbable.index(min(improbable))] == gold
    assert found["figures"]["acc"] == right / len(COLOURS)
    assert found["figures"]["pope_accuracy"] == 0


def nats(model: object, question: str, colour: str) -> list[float]:
    """-ln p of the answers yes and no."""
    processor = model.processor  # type: ignore[attr-defined]
    made = [processor.finished(processor.views(square(colour)))]
    turns = [(Turn("user", (0, question)), Turn("assistant", (answer,))) for answer in ("yes", "no")]
    example = processor.alternatives(turns, made, [0])
    return [-logp for logp, _ in log_probabilities(model, [example], [2])[0]]  # type: ignore[arg-type]
