"""What VLMEvalKit and lmms-eval wrote: answers that our scorers can score again, and figures marked as theirs.

| file | from | becomes |
|---|---|---|
| `<model>_<dataset>.xlsx`, `.tsv`, `.json` | VLMEvalKit | `Prediction`s |
| `<model>_<dataset>_acc.csv`, `_score.csv`, `_rating.json`, ... | VLMEvalKit | `Figure`s |
| `<date>_samples_<task>.jsonl` | lmms-eval | `Prediction`s |
| `<date>_results.json` | lmms-eval | `Figure`s |

Source: files written by ms-vlmeval 0.0.20 and lmms-eval 0.7.3.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm.contracts.errors import InputError
from vlm.interop.harness_tables import as_number, cells, records, reference

VLMEVALKIT, LMMS_EVAL = "VLMEvalKit", "lmms-eval"

# Their name -> ours, and what of it is not as our reader has it.
DATASETS = {
    "POPE": ("pope", "three splits in one"),
    "MME": ("mme", ""),
    "MMBench_DEV_EN": ("mmbench", ""),
    "AI2D_TEST": ("ai2d", "letters masked"),
    "AI2D_TEST_NO_MASK": ("ai2d", ""),
    "ScienceQA_TEST": ("scienceqa", "with a picture"),
    "MMMU_DEV_VAL": ("mmmu", "dev and val"),
    "MathVista_MINI": ("mathvista", ""),
    "TextVQA_VAL": ("textvqa", ""),
    "ChartQA_TEST": ("chartqa", ""),
    "DocVQA_VAL": ("docvqa", ""),
    "PathVQA_TEST": ("pathvqa", ""),
    "MVBench": ("mvbench", ""),
    "MVBench_MP4": ("mvbench", ""),
    "Video-MME": ("videomme", ""),
}
TASKS = {
    "pope": ("pope", "three splits in one"),
    "pope_random": ("pope", "random"),
    "pope_pop": ("pope", "popular"),
    "pope_adv": ("pope", "adversarial"),
    "mme": ("mme", ""),
    "mmbench_en_dev": ("mmbench", ""),
    "mmbench_en_dev_static": ("mmbench", ""),
    "ai2d": ("ai2d", "letters masked"),
    "ai2d_no_mask": ("ai2d", ""),
    "scienceqa": ("scienceqa", ""),
    "scienceqa_img": ("scienceqa", "with a picture"),
    "mmmu_val": ("mmmu", ""),
    "mathvista_testmini_format": ("mathvista", ""),
    "textvqa_val": ("textvqa", ""),
    "vqav2_val": ("vqav2", ""),
    "chartqa": ("chartqa", ""),
    "docvqa_val": ("docvqa", ""),
    "slake_en": ("slake", ""),
    "mvbench": ("mvbench", ""),
    "videomme": ("videomme", ""),
    "videomme_w_subtitle": ("videomme", "with subtitles"),
}
# The frames that a video set was shown are part of its name there.
FRAMES = r"(?:_\d+frame|_[\d.]+fps)?(?:_subs)?"
KNOWN = re.compile(rf"(?P<model>.+?)_(?P<dataset>(?P<base>{'|'.join(map(re.escape, DATASETS))})(?P<frames>{FRAMES}))")
AGGREGATES = ("_acc", "_acc_all", "_score", "_rating", "_fine", "_metrics")
NOTHING = (None, "", "N/A", "nan", [])  # where a harness has no figure
ERRORS = ("_stderr", "_stderr_clt", "_stderr_clustered")


@dataclass(frozen=True)
class Origin:
    """harness: its name.   dataset: its name for the data.   benchmark: ours, None if it is none of ours.
    data: what of it is not as our reader has it ("" = nothing).   model: as the harness calls it.
    """

    harness: str
    dataset: str
    benchmark: str | None
    data: str
    model: str


@dataclass(frozen=True)
class Prediction:
    """One answer.

    id: the row as the harness counts it, unique in its file.   question_id: the benchmark's own, where the file has it.
    prediction: the raw output.   prompt: what was asked, as far as the file says.
    reference: gold data in the shape that our scorer takes, None where the file does not have it.
    """

    origin: Origin
    id: str
    prediction: str
    prompt: str
    question_id: str | None = None
    reference: Any = None


@dataclass(frozen=True)
class Figure:
    """One number as the harness printed it, in its own unit.   split: "all" or its name there.   n: rows, if known."""

    origin: Origin
    metric: str
    value: float
    split: str = "all"
    n: int | None = None

    def entry(self) -> dict[str, Any]:
        """For a table beside our results: their keys, and null for what only we compute."""
        return {
            "benchmark": self.origin.benchmark or self.origin.dataset,
            "variant": self.origin.harness,
            "headline": False,
            "split": self.split,
            "n": self.n,
            "score": self.value,
            "metric": self.metric,
            "top": None,
            "interval": None,
            "settings": {"model": self.origin.model, "dataset": self.origin.dataset, "data": self.origin.data},
        }


def read_results(path: str | Path, dataset: str | None = None) -> list[Prediction | Figure]:
    """dataset: the harness's name of the data, for a VLMEvalKit file whose name ends in one that we do not know.

    Raises: InputError for a file of another form: no such name, missing columns, a row without an answer of its own,
    ids that come twice.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    if path.name.endswith(".jsonl"):
        return _samples(path)
    if path.name.endswith("_results.json"):
        return _task_figures(path)
    ending = next((end for end in AGGREGATES if path.stem.endswith(end)), None)
    if ending is not None:
        return _dataset_figures(path, _origin(path, path.stem.removesuffix(ending), dataset))
    return _answers(path, _origin(path, path.stem, dataset))


def _origin(path: Path, stem: str, dataset: str | None) -> Origin:
    if dataset is not None and stem.endswith(f"_{dataset}"):
        base = dataset if dataset in DATASETS else None
        benchmark, data = DATASETS.get(base or "", (None, ""))
        return Origin(VLMEVALKIT, dataset, benchmark, data, stem.removesuffix(f"_{dataset}"))
    found = KNOWN.fullmatch(stem)
    if found is None or dataset is not None:
        raise InputError(
            f"{path}: the name is none of VLMEvalKit's, <model>_<dataset> with {', '.join(DATASETS)} (its intermediate "
            "files, such as ..._auxmatch or ..._result, are not read); for other data give dataset=NAME"
        )
    benchmark, data = DATASETS[found["base"]]
    return Origin(VLMEVALKIT, found["dataset"], benchmark, data or found["frames"].lstrip("_"), found["model"])


def _answers(path: Path, origin: Origin) -> list[Prediction | Figure]:
    rows = cells(path, ("index", "question", "prediction"))
    _refuse_twice(path, [row["index"] for row in rows])
    shape: Callable[[Mapping[str, str]], Any] = lambda row: reference(origin.benchmark, row)  # noqa: E731
    return [Prediction(origin, row["index"], row["prediction"], row["question"], None, shape(row)) for row in rows]


def _dataset_figures(path: Path, origin: Origin) -> list[Prediction | Figure]:
    if path.suffix == ".json" and isinstance(found := _json(path), dict):
        return [Figure(origin, metric, value, split, n) for split, metric, value, n in _leaves(path, found)]
    figures = [
        Figure(origin, metric, value, row.get("split") or "all")
        for number, row in enumerate(cells(path, ()), 2)
        for metric, text in row.items()
        if metric != "split" and (value := as_number(text, f"{path}, line {number}, {metric}")) is not None
    ]
    if not figures:
        raise InputError(f"{path} has no figures; let VLMEvalKit write it again")
    return [*figures]


def _leaves(path: Path, found: Mapping[str, Any], split: str = "all") -> Iterator[tuple[str, str, float, int | None]]:
    """Split, metric, value, n of nested objects; what lies deeper belongs to a split of that name.

    A list is MVBench's [right, of, "50.00%"].
    """
    for key, value in found.items():
        if isinstance(value, dict):
            yield from _leaves(path, value, key if split == "all" else f"{split}/{key}")
        elif isinstance(value, list) and len(value) == 3 and str(value[2]).endswith("%"):
            yield split, key, 100 * value[0] / value[1], value[1]
        elif value not in NOTHING:
            number = as_number(str(value), f"{path}, {key}")
            if number is not None:
                yield split, key, number, None


def _task_figures(path: Path) -> list[Prediction | Figure]:
    found = _json(path)
    if not isinstance(found, dict) or not isinstance(found.get("results"), dict) or not found["results"]:
        raise InputError(f"{path} has no results of lmms-eval: an object with `results`, a task a key, is expected")
    model = str(found.get("model_name") or (found.get("config") or {}).get("model") or path.parent.name)
    figures: list[Prediction | Figure] = []
    for task, row in found["results"].items():
        if not isinstance(row, dict):
            raise InputError(f"{path}: results of {task} are {type(row).__name__}; an object is expected")
        n = ((found.get("n-samples") or {}).get(task) or {}).get("effective")
        for key, value in row.items():  # "metric,filter"; keys without a filter (alias, ...) are no metrics
            metric, comma, _ = key.partition(",")
            if not comma or metric.endswith(ERRORS) or value in NOTHING:
                continue
            nested = value if isinstance(value, dict) else {metric: value}
            for split, name, number, _ in _leaves(path, nested):
                figures.append(Figure(_task(task, model), metric, number, split if name == metric else name, n))
    return figures


def _samples(path: Path) -> list[Prediction | Figure]:
    name = re.fullmatch(r"(?:.+_)?samples_(?P<task>.+)", path.stem)
    if name is None:
        raise InputError(f"{path}: the name is none of lmms-eval's, <date>_samples_<task>.jsonl (--log_samples)")
    origin = _task(name["task"], path.parent.name)
    rows = list(records(path, ("doc_id", "target", "filtered_resps", "input")))
    _refuse_twice(path, [str(row["doc_id"]) for _, row in rows])
    return [
        Prediction(
            origin,
            str(row["doc_id"]),
            _said(path, number, row),
            str(row["input"]),
            _question_id(row),
            reference(origin.benchmark, {"answer": str(row["target"])}, bare=True),
        )
        for number, row in rows
    ]


def _said(path: Path, number: int, row: Mapping[str, Any]) -> str:
    """The raw output: `resps` where it differs from what the task's filters made of it."""
    said = row.get("resps", row["filtered_resps"])
    while isinstance(said, list) and len(said) == 1:
        said = said[0]
    if not isinstance(said, str):
        raise InputError(
            f"{path}, line {number}: not one text answer but {str(said)[:60]!r}; tasks that generate are read"
        )
    return said


def _question_id(row: Mapping[str, Any]) -> str | None:
    ids = {str(value["question_id"]) for value in row.values() if isinstance(value, dict) and "question_id" in value}
    return ids.pop() if len(ids) == 1 else None


def _task(task: str, model: str) -> Origin:
    benchmark, data = TASKS.get(task, ("mvbench", task[8:]) if task.startswith("mvbench_") else (None, ""))
    return Origin(LMMS_EVAL, task, benchmark, data, model)


def _refuse_twice(path: Path, ids: list[str]) -> None:
    twice = [id for id, count in Counter(ids).items() if count > 1]
    if twice:
        raise InputError(f"{path}: id {', '.join(twice[:5])} comes more than once; was the file written twice over?")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no valid JSON: {error}") from error
