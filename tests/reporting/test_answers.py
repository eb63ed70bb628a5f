"""Two models' answers side by side: which rows are shown, what is marked, and what the filters and totals say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.evaluation.asked import drawn
from tests.evaluation.towers import captioned
from tests.reporting.test_html import Page
from vlm.beside import write_comparison
from vlm.contracts.errors import InputError
from vlm.data.shards import ShardSet
from vlm.evaluation.compare import Comparison
from vlm.reporting.answers import KINDS, marked, pairings
from vlm.reporting.answers_page import render, write_answers

GOLD = {"color": "red", "shape": "circle"}
RIGHT, WRONG, INVENTED = "there is one red circle", "there is one blue circle", "one blue circle and one triangle"


def folder(path: Path, said: list[str], **settings: object) -> Path:
    """An evaluation of descriptions, as far as the page reads it."""
    benchmark = {"name": "small_descriptions", "scorer": "descriptions", "prompt": "{question}"}
    asked = {"id": path.name, "benchmark": benchmark, "limit": None, "seed": 0, "ocr": "none", "data": {}}
    measures = {name: {"value": 0.5, "interval": None} for name in ("wrong_colour", "wrong_shape", "invented")}
    entry = {
        "benchmark": "small_descriptions", "variant": "exact", "split": "all", "n": len(said), "score": 0.5,
        "metric": "right", "verdict": "above baseline", "details": {"measures": measures},
        "settings": {**asked, "token_budget": None, **settings},
    }  # fmt: skip
    rows = [
        {"benchmark": "small_descriptions", "settings": path.name, "id": f"q{number:03}", "prompt": "<image 1>Describe.",
         "prediction": text, "reference": GOLD, "score": float(text == RIGHT), "unparsable": False}
        for number, text in enumerate(said)
    ]  # fmt: skip
    (path / "sheets").mkdir(parents=True)
    (path / "results.json").write_text(json.dumps([entry]))
    (path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pair(tmp_path: Path, *said: tuple[str, str]) -> list[Path]:
    return [folder(tmp_path / name, [texts[place] for texts in said]) for place, name in enumerate(("sft", "dpo"))]


def page(folders: list[Path], pictures=lambda pairing: {}) -> Page:
    return Page(render(Comparison(tuple(map(str, folders)), ()), pairings(folders), pictures))


def test_words_that_the_other_answer_does_not_have_are_marked_in_both():
    one, two = marked("there is one red circle", "there is a red square here")
    assert one == [("there is", False), ("one", True), ("red", False), ("circle", True)]
    assert two == [("there is", False), ("a", True), ("red", False), ("square here", True)]
    assert marked("", "a") == ([], [("a", True)])


def test_what_differs_stands_first_and_every_row_is_of_one_kind(tmp_path):
    said = [
        (RIGHT, RIGHT),
        (WRONG, "a blue circle"),
        (INVENTED, WRONG),
        (WRONG, INVENTED),
        (WRONG, RIGHT),
        (RIGHT, WRONG),
    ]
    (found,) = pairings(pair(tmp_path, *said))
    assert [row.kind for row in found.rows] == ["lost", "gained", "more", "fewer", "words", "same"] == list(KINDS)
    assert found.n == sum(found.totals.values()) == 6


def test_verdicts_and_what_the_rule_found_stand_below_each_answer(tmp_path):
    (found,) = pairings(pair(tmp_path, (INVENTED, RIGHT)))
    (row,) = found.rows
    assert (row.first.verdict, row.other.verdict) == ("wrong", "right")
    assert row.first.faults == ("wrong_colour", "invented")
    assert row.truth.text == "color red, shape circle"
    text = page(pair(tmp_path / "again", (INVENTED, RIGHT))).text
    assert "wrong wrong colour invented" in text
    assert "Describe." in text
    assert "<image 1>" not in text


def test_rows_are_bounded_and_the_totals_told(tmp_path):
    said = [(WRONG, RIGHT)] * 100 + [(RIGHT, RIGHT)] * 50
    folders = pair(tmp_path, *said)
    (found,) = pairings(folders)
    assert len(found.rows) == KINDS["gained"] + KINDS["same"]
    shown = page(folders)
    assert "better 30 of 100" in shown.text
    assert "same words 8 of 50" in shown.text
    assert pairings(folders)[0].rows == found.rows  # the same choice every time


def test_a_filter_hides_the_other_kinds_without_any_script(tmp_path):
    shown = page(pair(tmp_path, (WRONG, RIGHT), (RIGHT, RIGHT)))
    assert "script" not in {tag for tag, _ in shown.tags}
    inputs = {tag["id"]: tag["class"] for tag in shown.all("input")}
    assert list(inputs.values()) == ["filter f-all", "filter f-gained", "filter f-same"]
    assert {tag["for"] for tag in shown.all("label")} == set(inputs)
    assert [tag["class"] for tag in shown.all("article")] == ["row gained", "row same"]


def test_pictures_stand_inside_and_what_keeps_them_away_is_told(tmp_path):
    folders = pair(tmp_path, (WRONG, RIGHT))
    assert page(folders, lambda pairing: {"q000": drawn(0)}).all("img")[0]["src"].startswith("data:image/jpeg")
    assert "picture cannot be read" in page(folders, lambda pairing: {"q000": b"no picture"}).text

    def gone(pairing):
        raise InputError("the pictures of small_descriptions are not shown: no such file")

    assert "not shown: no such file" in page(folders, gone).text


def test_pictures_come_from_the_files_that_were_asked_about(tmp_path):
    data = captioned(tmp_path / "data/drawings/test", ["one", "two"], color=["red"] * 2, shape=["circle"] * 2).parents[
        1
    ]
    values = {"color": ["red"], "shape": ["circle"]}
    reader = {"_target_": "vlm.evaluation.readers.prepared.Facts", "folder": "drawings/test", "values": values}
    index = hashlib.sha256((data / "drawings/test/index.npy").read_bytes()).hexdigest()
    for name, files, said in (
        ("same", {"index.npy": index}, ""),
        ("changed", {"index.npy": "ab"}, "has changed since"),
    ):
        folders = pair(tmp_path / name, (WRONG, RIGHT), (RIGHT, RIGHT))
        for path in folders:
            rename(path, [sample.key for sample in ShardSet(data / "drawings/test")], reader, files)
        out = write_comparison(Comparison(tuple(map(str, folders)), ()), data, tmp_path / f"{name}.html")
        shown = Page(out.read_text("utf-8"))
        assert len(shown.all("img")) == (0 if said else 2)
        assert said in shown.text


def rename(path: Path, keys: list[str], reader: dict, files: dict) -> None:
    """The questions of an evaluation are those of a prepared split."""
    rows = [json.loads(line) for line in (path / "predictions.jsonl").read_text().splitlines()]
    named = [{**row, "id": key} for row, key in zip(rows, keys, strict=True)]
    (path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    (entry,) = json.loads((path / "results.json").read_text())
    entry["settings"] |= {"data": files, "benchmark": {**entry["settings"]["benchmark"], "reader": reader}}
    (path / "results.json").write_text(json.dumps([entry]))


def test_what_was_not_asked_alike_is_not_put_side_by_side(tmp_path):
    one, other = folder(tmp_path / "a", [RIGHT]), folder(tmp_path / "b", [RIGHT], ocr="rapidocr")
    assert pairings([one, other]) == []
    assert "have no benchmark in common" in page([one, other]).text


def test_other_questions_under_the_same_settings_are_refused(tmp_path):
    with pytest.raises(InputError, match="hold other questions of the same files"):
        pairings([folder(tmp_path / "a", [RIGHT]), folder(tmp_path / "b", [RIGHT, RIGHT])])


@pytest.mark.parametrize("answer", ["", "<script>alert(1)</script>", "\u202e mirrored \ud800", "word " * 5000])
def test_no_answer_breaks_the_page(tmp_path, answer):
    folders = pair(tmp_path, (answer, RIGHT))
    out = write_answers(Comparison(tuple(map(str, folders)), ()), lambda pairing: {}, tmp_path / "compare.html")
    text = out.read_text("utf-8")
    assert "<script>" not in text
    assert len(text) < 100_000
