"""Writes the benchmarks' file forms for tests, and reads them back as scorers do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow import parquet

from data_prep.forms.__main__ import FormsSettings, main

FORMS = ("vqav2", "pope", "mme", "scienceqa")


def written(out: Path, place: Path, *forms: str) -> Path:
    main(FormsSettings(out, list(forms or FORMS), place))  # type: ignore[arg-type]
    return out


def pope(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def mme(folder: Path) -> list[dict[str, Any]]:
    return parquet.read_table(folder / "mme/data/test-00000-of-00001.parquet").to_pylist()


def problems(folder: Path) -> dict[str, dict[str, Any]]:
    return json.loads((folder / "problems.json").read_text())


def annotated(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(question, annotation), joined by question_id."""
    asked = json.loads((folder / "vqav2/v2_OpenEnded_mscoco_val2014_questions.json").read_text())["questions"]
    told = json.loads((folder / "vqav2/v2_mscoco_val2014_annotations.json").read_text())["annotations"]
    text = {entry["question_id"]: entry["question"] for entry in asked}
    assert len(text) == len(asked) == len(told)
    yield from ((text[entry["question_id"]], entry) for entry in told)
