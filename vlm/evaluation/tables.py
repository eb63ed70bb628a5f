"""Results as tables for a dashboard: every entry a row, and the worst errors with their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm.evaluation.records import PREDICTIONS, SHOWN, read_lines
from vlm.evaluation.text import best_baseline

RESULT = (
    "benchmark", "variant", "split", "n", "metric", "score", "low", "high", "best_baseline", "best_baseline_score",
    "verdict", "pictures", "unparsable", "truncated", "settings",
)  # fmt: skip
ERROR = ("benchmark", "id", "picture", "prompt", "prediction", "parsed", "reference", "score")
Table = tuple[Sequence[str], Sequence[Sequence[Any]]]


def tables(folder: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, Table]:
    """folder: of an evaluation that is written."""
    return {"evaluation/results": (RESULT, [_result(entry) for entry in entries]), "evaluation/errors": _errors(folder)}


def _result(entry: Mapping[str, Any]) -> list[Any]:
    scores = {name: found["score"] for name, found in entry["baselines"].items()}
    best = best_baseline(scores)
    pictures = entry["details"]["pictures"]
    return [
        entry["benchmark"], entry["variant"], entry["split"], entry["n"], entry["metric"], entry["score"],
        *entry["interval"], best, scores[best] if best else None, entry["verdict"],
        pictures["verdict"] if pictures else None, entry["unparsable"], entry["truncated"], entry["settings"]["id"],
    ]  # fmt: skip


def _errors(folder: Path) -> Table:
    files = {
        (line["benchmark"], line["settings"], line["id"]): folder / "pictures" / line["file"]
        for line in read_lines(folder / SHOWN)
    }
    rows = []
    for line in read_lines(folder / PREDICTIONS):
        picture = files.get((line["benchmark"], line["settings"], line["id"]))
        if picture is not None:
            texts = [str(line[key]) for key in ("prompt", "prediction", "parsed", "reference")]
            rows.append([line["benchmark"], line["id"], picture, *texts, line["score"]])
    return ERROR, rows
