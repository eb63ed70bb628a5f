"""A predictions file that came without its sheets: scored by the gold data that it brings, or by the benchmark's files."""

from __future__ import annotations

from pathlib import Path

from tests.evaluation.commands import again, edited, entries, pope
from tests.evaluation.readers.written import put_lines


def foreign(folder: Path, **changes: object) -> Path:
    rows = [
        {
            "benchmark": "pope", "id": str(number), "group": str(number // 4), "prediction": "yes" if number % 2 else "no",
            "reference": {"category": "random", "label": "yes" if number % 2 else "no"}, **changes,
        }
        for number in range(40)
    ]  # fmt: skip
    return put_lines(folder / "predictions.jsonl", rows)


def test_a_file_from_elsewhere_is_scored_by_the_gold_data_that_it_brings(tmp_path):
    foreign(tmp_path)
    assert again(tmp_path)[0] == 0
    first = entries(tmp_path)[0]
    assert (first["n"], first["groups"], first["score"], first["verdict"]) == (40, 10, 1.0, "above baseline")
    assert first["settings"]["completeness"].startswith("unknown")
    assert set(first["baselines"]) == {"always yes", "always no", "random answer", "empty"}  # no controls were run


def without_gold(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in ("reference", "group")} for row in rows]


def test_a_file_without_gold_data_is_compared_with_the_benchmarks_own_files(tmp_path):
    pope(tmp_path / "data")
    ours = [f"{kind}/{number}" for kind in ("random", "popular", "adversarial") for number in range(24)]
    rows = [
        {"benchmark": "pope", "id": name, "prediction": "yes" if int(name.split("/")[1]) % 2 else "no"} for name in ours
    ]
    put_lines(tmp_path / "predictions.jsonl", rows)
    places = [f"paths.data={tmp_path / 'data'}", "change.pope.reader.expected=null"]
    assert again(tmp_path, *places)[0] == 0
    assert (entries(tmp_path)[0]["n"], entries(tmp_path)[0]["groups"], entries(tmp_path)[0]["score"]) == (72, 6, 1.0)
    edited(tmp_path / "predictions.jsonl", lambda rows: rows[1:])
    code, told = again(tmp_path, *places)
    assert (code, "1 of 72 questions have no prediction: random/0" in told) == (2, True)
    edited(tmp_path / "predictions.jsonl", lambda rows: [{**rows[0], "id": "random/x"}, *rows])
    assert again(tmp_path, *places)[0] == 2


def test_a_file_from_elsewhere_names_a_benchmark_that_there_is_and_brings_gold_data_for_all_lines_or_none(tmp_path):
    foreign(tmp_path, benchmark="pop")
    code, told = again(tmp_path)
    assert (code, "there is no benchmark 'pop'; did you mean 'pope'" in told) == (2, True)
    edited(foreign(tmp_path), lambda rows: [*rows[:-1], *without_gold(rows[-1:])])
    code, told = again(tmp_path)
    assert (code, "pope 39: no reference, which other lines have; give it to all or none" in told) == (2, True)


def test_a_pair_of_mme_without_its_other_half_is_refused(tmp_path):
    row = {
        "benchmark": "mme",
        "id": "a",
        "prediction": "yes",
        "reference": {"category": "count", "image": "a", "answer": "Yes"},
    }
    put_lines(tmp_path / "predictions.jsonl", [row])
    code, told = again(tmp_path)
    assert (code, "has 1 rows, not two" in told) == (2, True)


def test_duplicates_in_a_file_from_elsewhere_are_refused_too(tmp_path):
    edited(foreign(tmp_path), lambda rows: [*rows, {**rows[0], "prediction": "other"}])
    assert again(tmp_path)[0] == 2


def test_gold_data_that_is_none_of_the_benchmarks_is_refused(tmp_path):
    foreign(tmp_path, reference={"category": "random", "label": "perhaps"})
    code, told = again(tmp_path)
    assert (code, "question 0: gold answer 'perhaps' is neither yes nor no" in told) == (2, True)
    assert not (tmp_path / "results.json").exists()


def test_long_and_odd_predictions_are_scored(tmp_path):
    edited(
        foreign(tmp_path), lambda rows: [{**row, "prediction": "yes 🐈\u2028我们\x00 " * 10_000} for row in rows[:12]]
    )
    assert again(tmp_path)[0] == 0
    assert entries(tmp_path)[0]["score"] == 0.5
