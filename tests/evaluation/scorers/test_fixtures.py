"""Every variant of every benchmark gives what the public scorer gives, on every row of tests/fixtures/eval."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from vlm.evaluation.score import score_answer

FOLDER = Path(__file__).parents[2] / "fixtures" / "eval"
LOOSE = {"caption", "retrieval", "zeroshot"}  # benchmarks whose public scorers compute in single precision


@cache
def rows(benchmark: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{benchmark}.jsonl").read_text("utf-8").split("\n") if line]


def tag(row: dict[str, Any]) -> str:
    return row["id"].split("/")[1]


PAIRS = sorted({(path.stem, tag(row)) for path in FOLDER.glob("*.jsonl") for row in rows(path.stem)})


def differences(found: Any, expected: Any, tolerance: float, where: str = "") -> list[str]:
    """What differs, with its place in the record. Numbers within the tolerance, everything else exactly."""
    if isinstance(expected, dict):
        if not isinstance(found, dict) or set(found) != set(expected):
            return [f"{where}: keys {found!r}, expected {expected!r}"]
        return [
            text
            for key in expected
            for text in differences(
                found[key], expected[key], 1e-2 if key.endswith("_2dp") else tolerance, f"{where}/{key}"
            )
        ]
    if isinstance(expected, list):
        if not isinstance(found, list | tuple) or len(found) != len(expected):
            return [f"{where}: {found!r}, expected {expected!r}"]
        return [
            text
            for number, pair in enumerate(zip(found, expected, strict=True))
            for text in differences(*pair, tolerance, f"{where}/{number}")
        ]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (found, expected))
    same = math.isclose(found, expected, rel_tol=0, abs_tol=tolerance) if numbers else found == expected
    return [] if same else [f"{where}: {found!r}, expected {expected!r}"]


@pytest.mark.parametrize(("benchmark", "variant"), PAIRS, ids=["/".join(pair) for pair in PAIRS])
def test_every_row_scores_as_the_public_scorer_scores_it(benchmark, variant):
    tolerance = 1e-6 if benchmark in LOOSE else 1e-9
    wrong = []
    for row in rows(benchmark):
        if tag(row) == variant:
            found = score_answer(benchmark, row["prediction"], row["reference"], variant)
            wrong += [f"{row['id']} {text}" for text in differences(found, row["expected"], tolerance)]
    assert not wrong, f"{len(wrong)} differences:\n" + "\n".join(wrong)


def test_no_row_is_left_out():
    assert sum(len(rows(path.stem)) for path in FOLDER.glob("*.jsonl")) == 2844
    assert len(PAIRS) > 60


def test_a_difference_is_seen():
    assert differences({"score": 1.0}, {"score": 1}, 1e-9) == []
    assert differences({"score": 0.9}, {"score": 1}, 1e-9)
    assert differences({"label": "no"}, {"label": None}, 1e-9)
    assert differences({"score": 1, "more": 0}, {"score": 1}, 1e-9)
    assert differences([1.0, [2.0]], [1.0, [2.1]], 1e-9)
    assert differences({"a_2dp": 1.004}, {"a_2dp": 1.0}, 1e-9) == []
