"""DocVQA: text read from a scanned page, scored by edit distance (ANLS).

ANLS = 1 - distance / length for the nearest gold answer, 0 below one half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rapidfuzz.distance import Levenshtein

from vlm.contracts.benchmark import Measure, Scored, Scorer
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.measures import mean, mean_of
from vlm.evaluation.scorers.trivial import always, most_frequent

THRESHOLD = 0.5  # a likeness below it counts nothing


def similarity(prediction: str, gold: str) -> float:
    """1 - edit distance / length, ignoring case and runs of blanks; the length is that of the longer text as written.

    Lengths are those of the upper-case texts, as the official script takes them: "ß" counts two.
    Source: Biten et al. 2019, and the DocVQA challenge's script.
    """
    length = max(len(gold.upper()), len(prediction.upper()))
    return 1.0 - Levenshtein.distance(_folded(gold), _folded(prediction)) / length if length else 1.0


def similarity_stvqa(prediction: str, gold: str) -> float:
    """LLaVA's form: blanks inside the text count, and the length is that of the longer stripped text.

    Two empty texts, where the original divides by zero, are unlike.
    """
    said, meant = prediction.lower().strip(), gold.lower().strip()
    length = max(len(said), len(meant))
    return 1.0 - Levenshtein.distance(said, meant) / length if length else 0.0


def case(like: Callable[[str, str], float]) -> Callable[[Any, Any], dict[str, Any]]:
    """One answer against all gold answers, the nearest counting."""

    def score(prediction: Any, reference: Any) -> dict[str, Any]:
        best = max(like(str(prediction), gold) for gold in _answers(reference))
        return {"score": best if best >= THRESHOLD else 0.0}

    return score


def total(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
    """The mean of the rows' ANLS."""
    score = case(similarity)
    scores = [score(said, gold)["score"] for said, gold in zip(predictions, references, strict=True)]
    return {"anls": sum(scores) / len(scores) if scores else None}


def measures(rows: Sequence[Scored]) -> list[Measure]:
    exact = [float(_folded(row.prediction) in {_folded(gold) for gold in _answers(row.reference)}) for row in rows]
    return [mean(rows, "ANLS"), mean_of(exact, [1.0] * len(rows), "exact match")]


def constants(references: Sequence[Any]) -> dict[str, list[str]]:
    answers = [gold for reference in references for gold in _answers(reference)]
    return {
        "most frequent answer": always(most_frequent(answers), references),
        "empty": always("", references),
    }


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def _answers(reference: Any) -> list[str]:
    answers = reference.get("answers") if isinstance(reference, Mapping) else reference
    answers = [answers] if isinstance(answers, str) else answers
    if not isinstance(answers, Sequence) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise InputError(f"docvqa: gold answers {answers!r} are no texts; rows need a key `answers` with at least one")
    return list(answers)


SCORER = Scorer(
    default="lmms",
    cases={"lmms": case(similarity), "vlmevalkit": case(similarity), "stvqa": case(similarity_stvqa)},
    totals={"lmms-agg": total},
    measures=measures,
    constants=constants,
)
