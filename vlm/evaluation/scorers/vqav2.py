"""VQAv2: open questions about pictures, ten people's answers each (Goyal et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlm.contracts.benchmark import Scorer
from vlm.evaluation.scorers.gold import value
from vlm.evaluation.scorers.measures import mean
from vlm.evaluation.scorers.normalise import normalise, normalise_evalai
from vlm.evaluation.scorers.vqa import answers_of, constants, normalisation, normalised_both, vqa_accuracy


def official(prediction: str, reference: Any) -> dict[str, Any]:
    """Normalises only where people disagree: "Two" against ten times "two" is wrong. Source: VQAEval.evaluate."""
    people = [_trimmed(person) for person in answers_of(reference)]
    answer = _trimmed(prediction)
    if len(set(people)) > 1:
        people, answer = [normalise(person) for person in people], normalise(answer)
    return {"score": vqa_accuracy(answer, people)}


def official_total(predictions: Sequence[str], references: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Percentages with two decimals, over questions. Raises: InputError for gold data without their types."""
    scores = [
        official(prediction, reference)["score"] for prediction, reference in zip(predictions, references, strict=True)
    ]
    return {
        "overall": _percent(scores),
        "perQuestionType": _by(scores, references, "question_type"),
        "perAnswerType": _by(scores, references, "answer_type"),
    }


def _by(scores: Sequence[float], references: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    kinds: dict[str, list[float]] = {}
    for score, reference in zip(scores, references, strict=True):
        kinds.setdefault(value(reference, key), []).append(score)
    return {kind: _percent(values) for kind, values in kinds.items()}


def _percent(scores: Sequence[float]) -> float:
    return round(100 * sum(scores) / len(scores), 2)


def _trimmed(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


SCORER = Scorer(
    default="lmms",
    cases={
        "lmms": normalised_both(normalise_evalai),
        "official": official,
        "normalize": normalisation(normalise),
    },
    totals={"official-agg": official_total},
    measures=lambda rows: [mean(rows)],
    constants=constants,
)
