"""MVBench: 20 tasks on short clips, two to five candidates (Li et al. 2024)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlm.contracts.benchmark import Case, Measure, Scored, Scorer
from vlm.evaluation.scorers.choices import by_letter, constants, gold_of, misread, options_of, parsed, unparsable
from vlm.evaluation.scorers.gold import value
from vlm.evaluation.scorers.letters import shared_letter
from vlm.evaluation.scorers.measures import macro, mean
from vlm.evaluation.scorers.normalise import without_punctuation

LEADING = re.compile(r"([A-E])\.", re.IGNORECASE)
ALONE = re.compile(r"\b([A-E])\b", re.IGNORECASE)


def lmms_is_right(prediction: str, gold: str, options: Mapping[str, str]) -> bool:
    """A leading "X." decides, else the first lone letter a to e, in any case. Source: lmms-eval, mcq_acc."""
    text = prediction.replace("\n", " ").replace("\t", " ").strip()
    found = LEADING.match(text) or ALONE.search(without_punctuation(text))
    return found is not None and found[1].upper() == gold


def official_is_right(prediction: str, gold: str, options: Mapping[str, str]) -> bool:
    """The first word, up to a blank, lies in "(gold)" or contains it; so nothing at all is right.

    Source: MVBench, check_ans of mvbench.ipynb.
    """
    word, token = prediction.lower().split(" ")[0], f"({gold.lower()})"
    return word.replace(".", "") in token or token in word


def vlmevalkit_is_right(prediction: str, gold: str, options: Mapping[str, str]) -> bool:
    """As official, of the stripped output. Source: VLMEvalKit, mvbench.check_ans."""
    return official_is_right(prediction.strip(), gold, options)


def matched_is_right(prediction: str, gold: str, options: Mapping[str, str]) -> bool:
    """As vlmevalkit, or right by the shared letter rule. Source: VLMEvalKit, mvbench.check_ans_with_model."""
    return vlmevalkit_is_right(prediction, gold, options) or shared_letter(prediction, options) == gold


def measures(rows: Sequence[Scored]) -> list[Measure]:
    """The mean of the tasks' accuracies, and the accuracy over all rows. Raises: InputError for rows without a task."""
    tasks = [value(row.reference, "task") for row in rows]
    return [macro(rows, tasks, "mean_over_tasks"), mean(rows), misread(rows)]


def lmms_total(predictions: Sequence[str], references: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Percentages by task; empty outputs are left out and counted."""
    tasks: dict[str, list[int]] = {}
    for prediction, reference in zip(predictions, references, strict=True):
        if prediction:
            tasks.setdefault(value(reference, "task"), []).append(CASES["lmms"](prediction, reference)["score"])
    return {
        "per_task_percent": {task: 100 * sum(scores) / len(scores) for task, scores in tasks.items()},
        "empty_predictions": sum(not prediction for prediction in predictions),
    }


def vlmevalkit_total(predictions: Sequence[str], references: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """By task and overall: right rows, rows, percentage as text."""
    tasks: dict[str, list[int]] = {}
    for prediction, reference in zip(predictions, references, strict=True):
        tasks.setdefault(value(reference, "task"), []).append(CASES["vlmevalkit"](prediction, reference)["score"])
    parts = tasks | {"overall": [score for scores in tasks.values() for score in scores]}
    return {name: [sum(part), len(part), f"{100 * sum(part) / len(part):.2f}%"] for name, part in parts.items()}


def _case(is_right: Callable[[str, str, Mapping[str, str]], bool]) -> Case:
    def case(prediction: str, reference: Any) -> dict[str, Any]:
        options = options_of(reference)
        return {"score": int(is_right(prediction, gold_of(reference, options), options))}

    return case


CASES = {
    "vlmevalkit-mc": by_letter(shared_letter),
    "lmms": _case(lmms_is_right),
    "official": _case(official_is_right),
    "vlmevalkit": _case(vlmevalkit_is_right),
    "vlmevalkit-em": _case(matched_is_right),
}

SCORER = Scorer(
    default="vlmevalkit-mc",
    cases=CASES,
    totals={"lmms-agg": lmms_total, "vlmevalkit-agg": vlmevalkit_total},
    measures=measures,
    constants=constants,
    unparsable=unparsable,
    parsed=parsed,
)
