"""ChartQA: a short answer about a chart, a number of which may be off by five percent (relaxed accuracy).

A number that stands for a year is allowed the same five percent, so the exact accuracy is a measure too.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from vlm.contracts.benchmark import Measure, Scored, Scorer
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.measures import mean, mean_of
from vlm.evaluation.scorers.trivial import always, most_frequent

TOLERANCE = 0.05  # of the gold number
HUMAN = "human_test"  # questions that people wrote; the others are made by a program


def relaxed(prediction: str, gold: str) -> bool:
    """Whether two numbers differ by at most five percent of the gold one, or two texts only in letter case.

    A gold number of 0 is compared as text. Thousands commas, currency and units make a number a text.
    Source: Methani et al. 2020, section 5.1, as lmms-eval computes it.
    """
    said, meant = _number(prediction), _number(gold)
    if said is not None and meant:  # not for 0
        return abs(said - meant) / abs(meant) <= TOLERANCE
    return prediction.lower() == gold.lower()


def lmms(prediction: Any, reference: Any) -> dict[str, Any]:
    """lmms-eval's form: the output is not stripped."""
    return {"score": float(relaxed(str(prediction), _answer(reference)))}


def vlmevalkit(prediction: Any, reference: Any) -> dict[str, Any]:
    """VLMEvalKit's form: stripped; a gold text in the form of a Python list is a choice of answers."""
    said = str(prediction).strip()
    return {"score": float(any(relaxed(said, gold) for gold in _alternatives(_answer(reference))))}


def lmms_total(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
    """Shares of right answers over all rows, over people's questions, and over the program's."""
    scores = [lmms(said, gold)["score"] for said, gold in zip(predictions, references, strict=True)]
    human = [_is_human(reference) for reference in references]
    return {
        "relaxed_overall": _share(scores),
        "relaxed_human_split": _share([score for score, is_human in zip(scores, human, strict=True) if is_human]),
        "relaxed_augmented_split": _share(
            [score for score, is_human in zip(scores, human, strict=True) if not is_human]
        ),
    }


def measures(rows: Sequence[Scored]) -> list[Measure]:
    human = [float(_is_human(row.reference)) for row in rows]
    augmented = [1.0 - share for share in human]
    right = [row.score for row in rows]
    exact = [_is_exact(row) for row in rows]
    return [
        mean(rows, "relaxed accuracy"),
        mean_of([score * one for score, one in zip(right, human, strict=True)], human, "human"),
        mean_of([score * one for score, one in zip(right, augmented, strict=True)], augmented, "augmented"),
        mean_of(exact, [1.0] * len(rows), "exact match"),
    ]


def constants(references: Sequence[Any]) -> dict[str, list[str]]:
    answers = [_answer(reference) for reference in references]
    return {
        "most frequent answer": always(most_frequent(answers), references),
        "empty": always("", references),
    }


def _answer(reference: Any) -> str:
    answer = reference.get("answer") if isinstance(reference, Mapping) else reference
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise InputError(
            f"chartqa: the gold answer {answer!r} is no text; rows need a key `answer` with the published text"
        )
    return str(answer)


def _is_human(reference: Any) -> bool:
    return isinstance(reference, Mapping) and reference.get("type") == HUMAN


def _is_exact(row: Scored) -> float:
    said = row.prediction.strip().lower()
    return float(any(said == gold.strip().lower() for gold in _alternatives(_answer(row.reference))))


def _alternatives(gold: str) -> list[str]:
    """The gold answers: the text, or the elements of the list that it writes."""
    if not gold.strip().startswith("["):
        return [gold]
    try:
        listed = ast.literal_eval(gold.strip())
    except (ValueError, SyntaxError):  # a text in brackets
        return [gold]
    return [str(one) for one in listed] if isinstance(listed, list) and listed else [gold]


def _number(text: str) -> float | None:
    """A trailing percent sign divides by 100."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _share(scores: Sequence[float]) -> float | None:
    return sum(scores) / len(scores) if scores else None


SCORER = Scorer(
    default="vlmevalkit",
    cases={"vlmevalkit": vlmevalkit, "lmms": lmms},
    totals={"lmms-agg": lmms_total},
    measures=measures,
    constants=constants,
)
