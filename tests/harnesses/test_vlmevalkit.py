"""A saved model of ours in VLMEvalKit: our part of it anywhere, and its own classes where they can be installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import vlm
from tests.harnesses.conftest import COLOURS, square
from tests.harnesses.environment import install, run
from vlm.contracts.errors import InputError
from vlm.harnesses import vlmevalkit
from vlm.harnesses.vlmevalkit import Answering, prompt_and_pictures, question


def text(value: str, **more: str) -> dict[str, str]:
    return {"type": "text", "value": value, **more}


def image(value: str) -> dict[str, str]:
    return {"type": "image", "value": value}


def test_pictures_in_front_leave_the_text_as_it_is() -> None:
    assert prompt_and_pictures([image("a.png"), image("b.png"), text("Which?\n")]) == ("Which?\n", ["a.png", "b.png"])


def test_texts_that_follow_each_other_are_joined_by_a_line_feed() -> None:
    assert prompt_and_pictures([text("Look.", role="system"), text("Which?", role="user")]) == ("Look.\nWhich?", [])


def test_a_picture_behind_text_leaves_its_number_at_its_place() -> None:
    message = [image("a.png"), text("Is "), image("b.png"), text(" like "), image("a.png"), text("?")]
    assert prompt_and_pictures(message) == ("Is <image 2> like <image 3>?", ["a.png", "b.png", "a.png"])


def test_a_clip_is_refused() -> None:
    with pytest.raises(InputError, match=r"'video'.*text and image"):
        prompt_and_pictures([{"type": "video", "value": "a.mp4"}, text("What?")])


def test_the_beginning_of_an_answer_is_refused() -> None:
    with pytest.raises(InputError, match="begins its answers by itself"):
        prompt_and_pictures([text("Which?"), text("Best option:(", role="assistant")])


def test_a_row_is_laid_out_as_hint_question_and_options_without_the_empty_cells() -> None:
    row = {"question": "Which?", "hint": "Blue.", "A": "cat", "B": float("nan"), "C": "fox", "D": None, "E": ""}
    assert question(row) == "Context: Blue.\nWhich?\nA. cat\nC. fox"
    assert question({"question": "Which?", "hint": float("nan")}) == "Which?"


def test_answers_are_those_of_generate_with_the_same_options(saved: Path, tmp_path: Path) -> None:
    square("red").save(tmp_path / "a.png")
    ours = Answering(saved, device="cpu", max_new_tokens=5)
    said = ours.generate_inner([image(str(tmp_path / "a.png")), text("What is it?")])
    assert said == vlm.generate(vlm.load_model(saved), "What is it?", [tmp_path / "a.png"], max_new_tokens=5) != ""


def test_an_unknown_option_is_refused_at_the_first_question(saved: Path) -> None:
    with pytest.raises(InputError, match="max_tokens"):
        Answering(saved, device="cpu", max_tokens=5).generate_inner([text("What?")])


def test_without_the_package_the_class_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vlmeval", None)
    vlmevalkit._saved_model.cache_clear()
    with pytest.raises(InputError, match="pip install ms-vlmeval"):
        vlmevalkit.SavedModel  # noqa: B018


def test_importing_the_adapter_imports_neither_torch_nor_the_harness(tmp_path: Path) -> None:
    code = "import sys, vlm.harnesses.vlmevalkit as a; assert not {'torch', 'vlmeval'} & {*sys.modules}"
    run(Path(sys.executable), "-c", code, cwd=tmp_path)


# What its modules import at their top, of all that it lists.
NEEDED = (
    "datasets", "decord", "imageio", "jieba", "json_repair", "levenshtein", "math-verify", "nltk", "num2words",
    "accelerate", "openai", "opencv-python-headless", "openpyxl", "pandas", "portalocker", "pylatexenc", "requests", "rouge",
    "scikit-learn", "sty", "tabulate", "termcolor", "timeout-decorator", "torchvision", "validators", "xlsxwriter",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1200)
def test_vlmevalkit_evaluates_a_saved_model_through_its_own_classes(saved: Path, tmp_path: Path) -> None:
    alone = ("ms-vlmeval==0.0.20", "qwen_vl_utils", "latex2sympy2_extended")
    python = install(tmp_path / "venv", *NEEDED, alone=alone)
    said = run(python, "-m", "tests.harnesses.in_vlmevalkit", saved, tmp_path, cwd=tmp_path)
    found = json.loads(said.splitlines()[-1])
    model, picture = vlm.load_model(saved), tmp_path / "picture.png"
    for number, colour in enumerate(COLOURS):
        square(colour).save(picture)
        prompt = f"Is it {colour}?"  # the harness's own prompt for questions that are neither choice nor video
        answer = vlm.generate(model, prompt, [picture], max_new_tokens=4)
        assert found["POPE"][number] == {
            "benchmark": "pope", "id": str(number), "prediction": answer, "model": "mine",
            "reference": {"question_id": str(number), "category": "random", "label": ["yes", "no"][number % 2]},
        }  # fmt: skip
        prompt = f"Which is it?\nA. {colour}\nB. white\nAnswer with a letter."  # our layout, as `instructions` asks
        answer = vlm.generate(model, prompt, [picture], max_new_tokens=4)
        assert found["AI2D_TEST"][number] == {
            "benchmark": "ai2d", "id": str(number), "prediction": answer, "model": "mine",
            "reference": {"options": [colour, "white"], "gold": "A"},
        }  # fmt: skip
    assert {"benchmark": "pope", "split": "random", "metric": "acc", "value": found["accuracy"]} in found["figures"]
    assert {"ai2d"} < {figure["benchmark"] for figure in found["figures"]}
