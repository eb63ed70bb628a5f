"""A predictions file scored again, without the model: ours beside its sheets, and others' that bring their gold data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.evaluation.commands import again, edited, entries, lines, mme, pope, run, words
from tests.evaluation.readers.written import put, put_lines
from tests.models.speakers import speaker
from vlm.evaluation.records import read_lines, write_json
from vlm.training.weights import save_model

ASKED = [
    "benchmarks=[pope,mme]", "decoding=likelihood", "change.pope.variants=[vlmevalkit,official]", "change.mme.variants=[lmms]", "change.pope.split_by=[]", "change.mme.split_by=[]",
    "change.pope.reader.expected=null", "change.pope.prompt='{question}'",
    "change.mme.reader.expected=null", "change.mme.prompt='{asked}'",
]  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """POPE and MME, by an untrained model."""
    root = tmp_path_factory.mktemp("done")
    save_model(speaker("gpt2_nano", root), root / "model")
    code, _, told = run(*words(root / "model", mme(pope(root / "data")), root / "out", *ASKED))
    assert code == 0, told
    return root / "out"


@pytest.fixture
def out(done, tmp_path) -> Path:
    shutil.copytree(done, tmp_path / "out")
    return tmp_path / "out"


def headlines(out: Path) -> dict[str, tuple[float, str]]:
    found = [entry for entry in entries(out) if entry["headline"] and entry["split"] == "all"]
    return {entry["benchmark"]: (entry["score"], entry["verdict"]) for entry in found}


def gold(row: dict) -> str:
    return row["reference"]["label"] if row["benchmark"] == "pope" else row["reference"]["answer"]


def test_rescoring_gives_the_results_that_there_were(out):
    before = entries(out)
    (out / "results.json").unlink()
    assert again(out)[0] == 0
    for entry in before:
        entry["details"].pop("trained_on", None)
    after = entries(out)
    for entry in after:
        entry["details"].pop("trained_on", None)
    assert after == before
    assert lines(out, "rescored.jsonl") == lines(out)
    assert (out / "results.html").is_file()


@pytest.mark.parametrize(
    ("say", "right", "total", "verdict"),
    [
        (gold, 1.0, 400.0, "above baseline"),
        (lambda row: "yes", 0.5, 100.0, "not above baseline"),
        (lambda row: "No.", 0.5, 100.0, "not above baseline"),
        (lambda row: "", 0.0, 0.0, "not above baseline"),
        (lambda row: "no" if gold(row).lower() == "yes" else "yes", 0.0, 0.0, "not above baseline"),
    ],
    ids=["truth", "always yes", "always no", "nothing", "the opposite"],
)
def test_truth_scores_its_top_and_constants_their_constants(out, say, right, total, verdict):
    edited(out / "predictions.jsonl", lambda rows: [{**row, "prediction": say(row)} for row in rows])
    assert again(out)[0] == 0
    assert headlines(out) == {"pope": (right, verdict), "mme": (total, verdict)}


def test_what_the_controls_answered_still_stands_beside_new_predictions(out):
    edited(out / "predictions.jsonl", lambda rows: [{**row, "prediction": gold(row)} for row in rows])
    assert again(out)[0] == 0
    assert all("the model with grey pictures" in entry["baselines"] for entry in entries(out))
    assert entries(out)[0]["details"]["pictures"]["verdict"] == "uses its pictures"


def test_scores_and_readings_in_the_file_are_not_believed(out):
    before = headlines(out)
    edited(
        out / "predictions.jsonl",
        lambda rows: [{**row, "score": 1.0, "parsed": gold(row), "unparsable": False} for row in rows],
    )
    assert again(out)[0] == 0
    assert headlines(out) == before


def test_gold_data_in_the_file_is_not_believed_where_the_sheet_has_its_own(out):
    before = headlines(out)
    edited(
        out / "predictions.jsonl",
        lambda rows: [{**row, "reference": {**row["reference"], "label": row["prediction"]}} for row in rows],
    )
    assert again(out)[0] == 0
    assert headlines(out) == before


def test_missing_predictions_are_refused_or_count_as_wrong_if_that_is_asked_for(out):
    edited(out / "predictions.jsonl", lambda rows: [{**row, "prediction": gold(row)} for row in rows[:-5]])
    code, told = again(out)
    assert code == 2
    assert "5 of 72 questions have no prediction: " in told
    assert "count them as wrong with missing=unparsable" in told
    assert again(out, "missing=unparsable")[0] == 0
    found = next(entry for entry in entries(out) if entry["benchmark"] == "pope" and entry["split"] == "all")
    assert (found["n"], found["score"], found["details"]["unparsable_n"]) == (72, 67 / 72, 5)
    assert not any("positions" in warning for warning in found["details"]["warnings"])


@pytest.mark.parametrize("missing", ["refuse", "unparsable"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[0]], "has several predictions; keep one"),
        (
            lambda rows: [*rows, {**rows[0], "id": "random/999"}],
            "has no question random/999; is it of another version or subset?",
        ),
        (lambda rows: [*rows, {**rows[0], "prediction": None}], "prediction must be there, as text"),
        (lambda rows: [*rows, {"id": "a", "prediction": "x"}], "line 93: benchmark must be there, as text"),
        (lambda rows: [{**rows[0], "id": 7}], "line 1: id must be there, as text"),
    ],
)
def test_duplicate_unknown_and_unreadable_lines_are_always_refused(out, change, message, missing):
    before = (out / "results.json").read_bytes()
    edited(out / "predictions.jsonl", change)
    code, told = again(out, f"missing={missing}")
    assert (code, message in told) == (2, True), told
    assert (out / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{\n", "line 1 is no JSON"),
        (b"[1]\n", "line 1 is no JSON object"),
        (b"[" * 100_000, "line 1 is no JSON"),
        (b"\xff\xfe", "cannot be read"),
        (b"", "predictions.jsonl"),
    ],
)
def test_a_file_that_is_no_predictions_file_is_refused(tmp_path, content, message):
    put(tmp_path / "predictions.jsonl", content)
    code, told = again(tmp_path)
    assert (code, message in told, list(tmp_path.iterdir())) == (2, True, [tmp_path / "predictions.jsonl"])


def test_a_file_that_is_not_there_is_refused(tmp_path):
    code, told = again(tmp_path)
    assert (code, "predictions.jsonl cannot be read" in told) == (2, True)


def test_predictions_of_another_subset_than_the_sheets_are_refused(out):
    """The same benchmark asked of eight questions has a sheet of its own; its name decides what is complete."""
    name = next(path.name.removeprefix("pope-") for path in (out / "sheets").glob("pope-*"))
    edited(
        out / "predictions.jsonl",
        lambda rows: [row for row in rows if row["benchmark"] == "pope" and row["id"].startswith("random/")],
    )
    code, told = again(out)
    assert (code, "48 of 72 questions have no prediction" in told) == (2, True)
    edited(out / "predictions.jsonl", lambda rows: [{**row, "settings": "elsewhere"} for row in rows])
    assert again(out)[0] == 0  # without its sheet it is a foreign file, and says that its completeness is unknown
    assert name not in {entry["settings"]["id"] for entry in entries(out)}


def test_a_damaged_sheet_names_the_file(out):
    (sheet,) = (out / "sheets").glob("pope-*")
    (sheet / "settings.json").write_text("{")
    code, told = again(out)
    assert (code, f"{sheet / 'settings.json'} cannot be read" in told) == (2, True)


def test_results_are_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "results.json", [1])
    with pytest.raises(TypeError):
        write_json(tmp_path / "results.json", [object()])
    assert (json.loads((tmp_path / "results.json").read_text()), len(list(tmp_path.iterdir()))) == ([1], 1)


def test_lines_of_other_scripts_come_back_as_they_are(tmp_path):
    put_lines(tmp_path / "a.jsonl", [{"id": "é\u2028🐈"}, {"id": "\ud800"}])
    assert [row["id"] for row in read_lines(tmp_path / "a.jsonl")] == ["é\u2028🐈", "\ud800"]
