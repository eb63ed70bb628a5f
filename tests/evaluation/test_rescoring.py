"""What survives a rescoring, what may be changed by it, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.evaluation.commands import SHORT, again, edited, entries, lines, run, words
from vlm.evaluation.records import write_json

LONG = "change.pope.prompt='" + "very " * 60 + "{question}'"


@pytest.fixture(scope="module")
def done(model, data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("done")
    code, _, told = run(*words(model, data, out, *SHORT, "decoding=likelihood"))
    assert code == 0, told
    return out


@pytest.fixture
def out(done, tmp_path) -> Path:
    shutil.copytree(done, tmp_path / "out")
    return tmp_path / "out"


def sheet(out: Path) -> Path:
    (found,) = (out / "sheets").glob("pope-*")
    return found


def opposite(rows: list[dict]) -> list[dict]:
    return [{**row, "prediction": "no" if row["prediction"] == "yes" else "yes"} for row in rows]


def test_prompts_that_did_not_fit_still_do_not(model, data, tmp_path):
    given = [word for word in SHORT if "prompt" not in word]
    assert run(*words(model, data, tmp_path, *given, LONG))[0] == 0
    assert again(tmp_path)[0] == 0
    (entry,) = entries(tmp_path)
    assert (entry["details"]["too_long_n"], entry["score"]) == (24, 0.0)
    assert all(line["fault"].startswith("text_long") for line in lines(tmp_path, "rescored.jsonl"))


def test_the_trained_on_pictures_are_told_again_as_long_as_the_answers_are_the_same(out):
    told = {"pictures": 6, "trained_on": 2, "rest_n": 16, "rest_score": 0.25}
    known = json.loads((sheet(out) / "results.json").read_text())
    known[0]["details"]["trained_on"] = told
    write_json(sheet(out) / "results.json", known)
    assert again(out)[0] == 0
    assert entries(out)[0]["details"]["trained_on"] == told
    edited(out / "predictions.jsonl", opposite)
    assert again(out)[0] == 0
    changed = entries(out)[0]["details"]["trained_on"]
    assert changed == {
        "unknown": ["the answers have changed since the pictures were compared; evaluate the model again"]
    }


def test_variants_and_splits_may_change_although_the_sheet_says_what_was_asked(out):
    assert again(out, "change.pope.variants=[official,lmms]", "change.pope.split_by=[category]")[0] == 0
    assert [(entry["variant"], entry["headline"]) for entry in entries(out)] == [("official", True), ("lmms", False)]
    code, told = again(out, "change.pope.variants=[strict]")
    assert (code, "strict" in told) == (2, True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["change.pope.prompt='{question}!'"], "pope: prompt cannot change once the questions are answered"),
        (["change.pope.max_new_tokens=9"], "pope: max_new_tokens cannot change"),
        (["limit=4"], "pope: limit cannot change once the questions are answered"),
        (["change.pope.split_by=[colour]"], "colour"),
        (["out=elsewhere"], "out means nothing to rescore=; leave it out"),
        (["decoding=greedy", "processes=2"], "decoding, processes means nothing to rescore=; leave it out"),
        (["controls=[]"], "controls means nothing to rescore="),
        (["suite=small"], "suite: not read by rescore=; leave one out"),
    ],
)
def test_what_was_asked_cannot_change_and_what_is_not_read_cannot_be_given(out, given, message):
    before = (out / "results.json").read_bytes()
    code, told = again(out, *given)
    assert (code, message in told) == (2, True), told
    assert (out / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('"score": NaN', "NaN is no number of JSON"),
        ('"truncated": "false"', "truncated must be true or false"),
        ('"group": 7', "group a text"),
    ],
)
def test_lines_whose_values_mean_something_else_are_refused(tmp_path, more, message):
    gold = '"reference": {"category": "random", "label": "yes"}'
    line = f'{{"benchmark": "pope", "id": "random/0", "prediction": "yes", {gold}, {more}}}'
    (tmp_path / "predictions.jsonl").write_text(line + "\n")
    code, told = again(tmp_path)
    assert (code, message in told) == (2, True), told
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]
