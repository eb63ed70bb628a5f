"""Answers of VLMEvalKit and lmms-eval, scored by the evaluation command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.commands import edited, entries, lines, run
from tests.harnesses.test_harness_results import CHOICE, POPE, SAMPLE, Row, samples, table

LABELS = ["Yes", "No"] * 12


def vlmevalkit(folder: Path, name: str = "my_model_POPE.tsv") -> Path:
    rows: list[Row] = [
        POPE
        | {
            "index": number,
            "answer": label,
            "prediction": f"{label}.",
            "category": ("random", "popular")[number % 3 > 0],
        }
        for number, label in enumerate(LABELS)
    ]
    return table(folder / name, *rows)


def lmms_eval(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [
        SAMPLE | {"doc_id": number, "target": label.lower(), "filtered_resps": label, "pope_accuracy": {"question_id": str(number % 12)}} | changes
        for number, label in enumerate(LABELS)
    ]  # fmt: skip
    return samples(folder / "20260101_000000_samples_pope.jsonl", *rows)


def rescore(file: Path, *more: str) -> tuple[int, str]:
    code, _, told = run(f"rescore={file}", *more)
    return code, told


def test_a_table_of_vlmevalkit_is_scored_and_says_where_it_comes_from(tmp_path):
    code, told = rescore(vlmevalkit(tmp_path))
    assert code == 0, told
    first, *splits = [entry for entry in entries(tmp_path) if entry["headline"]]
    assert (first["benchmark"], first["n"], first["score"], first["verdict"]) == ("pope", 24, 1.0, "above baseline")
    assert {split["split"]: split["n"] for split in splits} == {"category=popular": 16, "category=random": 8}
    settings = first["settings"]
    assert (settings["harness"], settings["model"], settings["dataset"]) == ("VLMEvalKit", "my_model", "POPE")
    assert settings["differs"] == "three splits in one"
    assert settings["completeness"].startswith("unknown")
    assert {row["prediction"] for row in lines(tmp_path, "rescored.jsonl")} == {"Yes.", "No."}
    assert (tmp_path / "results.html").is_file()


def test_a_table_of_choices_is_scored(tmp_path):
    rows = [CHOICE | {"index": number, "prediction": "B" if number % 4 else "A"} for number in range(24)]
    code, told = rescore(table(tmp_path / "m_AI2D_TEST_NO_MASK.tsv", *rows))
    assert code == 0, told
    assert (entries(tmp_path)[0]["benchmark"], entries(tmp_path)[0]["score"]) == ("ai2d", 0.75)


def test_samples_of_lmms_eval_are_scored_and_say_where_they_come_from(tmp_path):
    """Its question ids begin anew in each of POPE's three files, and its lines hold no category."""
    code, told = rescore(lmms_eval(tmp_path / "org__model"), "change.pope.split_by=[]")
    assert code == 0, told
    first = entries(tmp_path / "org__model")[0]
    assert (first["benchmark"], first["n"], first["score"]) == ("pope", 24, 1.0)
    assert (first["settings"]["harness"], first["settings"]["model"]) == ("lmms-eval", "org__model")


def test_answers_of_two_origins_make_no_one_result(tmp_path):
    assert rescore(vlmevalkit(tmp_path))[0] == 0
    own = tmp_path / "my_model_POPE.predictions.jsonl"
    edited(
        own, lambda rows: [{**row, "origin": {**row["origin"], "model": f"model {row['id'] > '12'}"}} for row in rows]
    )
    before = (tmp_path / "results.json").read_bytes()
    code, told = rescore(own)
    assert (code, "answers of several origins" in told) == (2, True), told
    assert (tmp_path / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m_POPE_score.csv", "split,acc\nOverall,50\n", "it holds figures, and no answers"),
        ("x_samples_vizwiz.jsonl", json.dumps(SAMPLE) + "\n", "vizwiz is none of our benchmarks"),
    ],
)
def test_what_holds_no_answers_to_our_benchmarks_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    code, told = rescore(tmp_path / name)
    assert (code, message in told) == (2, True), told
    assert [path.name for path in tmp_path.iterdir()] == [name]
