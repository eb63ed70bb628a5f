"""The evaluation command in this process or in one of its own, on small files of the published forms and small models."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from experiments.command import tell
from tests.evaluation.asked import drawn
from tests.evaluation.readers.written import put, put_lines, put_parquet
from vlm.build import compose
from vlm.contracts.settings import EvaluateConfig
from vlm.evaluate import evaluate

POPE = [
    "benchmarks=[pope]", "change.pope.reader.expected=null", "change.pope.prompt='{question}'", "change.pope.max_new_tokens=4",
]  # fmt: skip
PLAIN = [*POPE, "change.pope.variants=[vlmevalkit]", "change.pope.split_by=[]", "change.pope.reader.kinds=[random]"]
SHORT = [*PLAIN, "controls=[]"]
QUIET = ["logging.wandb=disabled", "logging.progress=false", "device=cpu"]


def words(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return [f"model={model}", f"paths.data={data}", f"out={out}", *QUIET, *more]


def run(*given: str) -> tuple[int, str, str]:
    """In this process. Returns: exit code, standard output and error."""
    said, told = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(said), redirect_stderr(told):
        try:
            evaluate(compose(list(given), "evaluate", EvaluateConfig))
        except SystemExit as end:
            code = int(end.code or 0)
        except Exception as error:  # noqa: BLE001 - as the command tells it
            code = tell(error)
    return code, said.getvalue(), told.getvalue()


def command(*given: str) -> list[str]:
    return [sys.executable, "-m", "experiments.evaluate", *given]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "COLUMNS": "200"}


def entries(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "results.json").read_text())


def lines(folder: Path, name: str = "predictions.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def edited(file: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Path:
    return put_lines(file, change([json.loads(line) for line in file.read_text().splitlines()]))


def pope(data: Path, pictures: int = 6, each: int = 4) -> Path:
    """POPE's three files: `each` questions a picture and file, each text once with yes and once with no."""
    for number in range(pictures):
        put(data / "pope" / "val2014" / f"{number}.png", drawn(number))
    for kind in ("random", "popular", "adversarial"):
        rows = [
            {"question_id": number, "image": f"{number // each}.png", "text": f"is {'it red' * (1 + number // 2 % 2)}?", "label": "yes" if number % 2 else "no"}
            for number in range(pictures * each)
        ]  # fmt: skip
        put_lines(data / "pope" / f"coco_pope_{kind}.json", rows)
    return data


def mme(data: Path, pictures: int = 5) -> Path:
    """MME's table: two categories, a question with yes and one with no a picture."""
    rows = [
        {
            "question_id": f"{category}/{number}.png", "image": {"bytes": drawn(number), "path": None}, "category": category,
            "question": "is it red? Please answer yes or no.", "answer": answer,
        }
        for category in ("existence", "OCR") for number in range(pictures) for answer in ("Yes", "No")
    ]  # fmt: skip
    put_parquet(data / "mme" / "data" / "test-00000-of-00001.parquet", rows)
    return data


def vqa(data: Path, pictures: int = 6) -> Path:
    """VQAv2's two files: a yes/no question and an open one a picture."""
    asked, told = [], []
    for number in range(2 * pictures):
        answers = [
            {"answer": "yes" if number % 2 else "red", "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)
        ]
        asked.append({"image_id": number // 2, "question": "is it?" if number % 2 else "what?", "question_id": number})
        told.append(
            {
                "question_id": number, "image_id": number // 2, "question_type": "is", "answers": answers,
                "answer_type": "yes/no" if number % 2 else "other", "multiple_choice_answer": answers[0]["answer"],
            }
        )  # fmt: skip
    put(data / "vqav2" / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": asked})
    put(data / "vqav2" / "v2_mscoco_val2014_annotations.json", {"annotations": told})
    for number in range(pictures):
        put(data / "vqav2" / "val2014" / f"COCO_val2014_{number:012d}.jpg", drawn(number))
    return data


def scienceqa(data: Path, count: int = 12) -> Path:
    """ScienceQA's two files: three choices a question, every second one with a picture."""
    problems = {}
    for number in range(count):
        problems[str(number)] = {
            "question": "what is it?", "choices": ["red", "green", "one"], "answer": number % 3, "hint": "", "task": "closed choice",
            "image": "image.png" if number % 2 else None, "subject": "s", "topic": "t", "split": "test",
            "grade": "grade1", "category": "c", "skill": "s", "lecture": "", "solution": "",
        }  # fmt: skip
        if number % 2:
            put(data / "scienceqa" / "images" / "test" / str(number) / "image.png", drawn(number))
    put(data / "scienceqa" / "problems.json", problems)
    put(data / "scienceqa" / "pid_splits.json", {"test": list(problems), "train": [], "val": []})
    return data


def again(out: Path, *more: str) -> tuple[int, str]:
    """Its predictions.jsonl scored anew. Returns: exit code and standard error."""
    code, _, told = run(f"rescore={out / 'predictions.jsonl'}", *more)
    return code, told
