"""Medical questions (VQA-RAD, SLAKE, PathVQA): open answers by their words, closed ones by yes or no.

Recall is the published figure of open answers. A long answer raises it, so F1, equality and length stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlm.contracts.benchmark import Case, Measure, Scored, Scorer
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.measures import mean, mean_of
from vlm.evaluation.scorers.medical_closed import fold, fold_yes_no
from vlm.evaluation.scorers.medical_words import candidate, normal, overlap
from vlm.evaluation.scorers.trivial import always, most_frequent
from vlm.evaluation.scorers.yesno import yes_or_no

OPEN, CLOSED = "OPEN", "CLOSED"
YES_NO = ("yes", "no")


def llavamed_open(prediction: Any, reference: Any) -> dict[str, Any]:
    """LLaVA-Med's figures of an open answer; the candidate accuracy needs `candidates` in the gold data."""
    gold, candidates = gold_answer(reference), reference.get("candidates")
    chosen = candidate(str(prediction), candidates) if candidates else None
    figures: dict[str, Any] = overlap(str(prediction), gold)
    return {**figures, "open_candidate_accuracy": None if chosen is None else float(normal(chosen) == normal(gold))}


def llavamed_closed(prediction: Any, reference: Any) -> dict[str, Any]:
    """Right if the gold text stands in the answer, and "yes" or "no" too, be it inside a word ("normal")."""
    said, gold = normal(str(prediction).lower()), normal(gold_answer(reference).lower())
    readable = any(word in said for word in YES_NO)
    return {"score": int(readable and gold in said), "normalized_prediction": said, "unparsable": not readable}


def closed_strict(prediction: Any, reference: Any) -> dict[str, Any]:
    """A gold yes or no by the word in the answer, any other gold text by equality without case and punctuation."""
    gold = fold(gold_answer(reference))
    if gold in YES_NO:
        said: str | None = yes_or_no(str(prediction))
    else:
        gold, said = fold_yes_no(gold), fold_yes_no(fold(str(prediction))) or None
    return {"extracted": said, "score": int(said == gold), "unparsable": said is None}


def by_kind(closed: Case) -> Case:
    """Open rows by the recall of their words, closed rows by a rule for closed answers."""

    def score(prediction: Any, reference: Any) -> dict[str, Any]:
        if not _is_open(reference):
            return closed(prediction, reference)
        said = normal(str(prediction))
        figures = overlap(str(prediction), gold_answer(reference))
        return {"extracted": said or None, "score": figures["recall"], **figures, "unparsable": not said}

    return score


def scorer(candidates: Sequence[object], cases: Mapping[str, Case] | None = None) -> Scorer:
    """The scorer of one data set.

    candidates: what LLaVA-Med's totals choose between where the gold data names no candidates of its own.
    cases: variants of this data set alone.
    """

    def total(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
        given = next((row["candidates"] for row in references if row.get("candidates")), candidates)
        return llavamed_total(predictions, references, given)

    return Scorer(
        default="strict",
        cases={
            "strict": by_kind(closed_strict),
            "llavamed": by_kind(llavamed_closed),
            "llavamed-open": llavamed_open,
            "llavamed-closed": llavamed_closed,
            "closed-strict": closed_strict,
            **(cases or {}),
        },
        totals={"llavamed-agg": total},
        measures=measures,
        constants=constants,
        unparsable=unparsable,
        parsed=parsed,
    )


def llavamed_total(
    predictions: Sequence[Any], references: Sequence[Any], candidates: Sequence[object]
) -> dict[str, Any]:
    """Means over the open rows, and the accuracy of the closed ones, as LLaVA-Med prints them."""
    rows = list(zip(predictions, references, strict=True))
    found = [llavamed_open(said, {**gold, "candidates": candidates}) for said, gold in rows if _is_open(gold)]
    right = [llavamed_closed(said, gold)["score"] for said, gold in rows if not _is_open(gold)]
    names = ("exact_match", "f1", "precision", "recall", "open_candidate_accuracy")
    return {
        **{name: _share([figures[name] for figures in found]) for name in names},
        "closed_accuracy": _share(right),
        "candidates": list(candidates),
    }


def measures(rows: Sequence[Scored]) -> list[Measure]:
    is_open = [_is_open(row.reference) for row in rows]
    opened, closed = [float(one) for one in is_open], [float(not one) for one in is_open]
    nothing = dict.fromkeys(("recall", "f1"), 0.0)
    figures = [
        overlap(row.prediction, gold_answer(row.reference)) if one else nothing
        for row, one in zip(rows, is_open, strict=True)
    ]
    lengths = [float(len(row.prediction.split())) for row in rows]
    return [
        mean(rows, "score"),
        mean_of([one["recall"] for one in figures], opened, "open recall"),
        mean_of([one["f1"] for one in figures], opened, "open F1"),
        mean_of([_is_equal(row) if one else 0.0 for row, one in zip(rows, is_open, strict=True)], opened, "open equal"),
        mean_of(_closed(rows, is_open, closed_strict), closed, "closed accuracy"),
        mean_of(_closed(rows, is_open, llavamed_closed), closed, "closed accuracy (llavamed)"),
        mean_of(lengths, [1.0] * len(rows), "words", top=max(lengths, default=0.0)),
    ]


def constants(references: Sequence[Any]) -> dict[str, list[str]]:
    """Of the gold answers' kinds. All answers in a row would give every open row its recall: the reason that F1 is printed."""
    answers = [gold_answer(reference) for reference in references]
    opened = [_is_open(reference) for reference in references]
    commonest = {
        kind: most_frequent(of_kind)
        for kind in (True, False)
        if (of_kind := [answer for answer, one in zip(answers, opened, strict=True) if one == kind])
    }
    return {
        "always yes": always("yes", references),
        "always no": always("no", references),
        "most frequent answer": [commonest[one] for one in opened],
        "empty": always("", references),
    }


def unparsable(prediction: Any, reference: Any, record: Mapping[str, Any]) -> bool:
    return bool(record["unparsable"]) if "unparsable" in record else not normal(str(prediction))


def parsed(record: Mapping[str, Any]) -> str | None:
    return record["extracted"] if "extracted" in record else record.get("normalized_prediction")


def _closed(rows: Sequence[Scored], is_open: Sequence[bool], rule: Case) -> list[float]:
    """The rule's scores of the closed rows, 0 for open ones."""
    return [
        0.0 if one else float(rule(row.prediction, row.reference)["score"])
        for row, one in zip(rows, is_open, strict=True)
    ]


def _is_equal(row: Scored) -> float:
    return float(normal(row.prediction) == normal(gold_answer(row.reference)))


def _is_open(reference: Any) -> bool:
    kind = str(reference.get("answer_type", "")).upper() if isinstance(reference, Mapping) else ""
    if kind not in (OPEN, CLOSED):
        raise InputError(f"medical: {reference!r} needs a key `answer_type`, OPEN or CLOSED")
    return kind == OPEN


def gold_answer(reference: Any) -> str:
    """The gold text. Raises: InputError where there is none."""
    answer = reference.get("answer") if isinstance(reference, Mapping) else None
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise InputError(f"medical: {reference!r} needs a key `answer` with a text or a number")
    return str(answer)


def _share(scores: Sequence[float]) -> float | None:
    return sum(scores) / len(scores) if scores else None
