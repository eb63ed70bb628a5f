"""The name of the digit in a picture, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlm.contracts.benchmark import Measure, Scored, Scorer
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.measures import macro, mean
from vlm.evaluation.scorers.trivial import always, most_frequent


def exact(prediction: Any, reference: Any) -> dict[str, Any]:
    """Right if the whole answer is the name, blanks at the ends and letter case aside."""
    said = str(prediction).strip().lower()
    return {"extracted": said or None, "score": float(said == _name(reference))}


def measures(rows: Sequence[Scored]) -> list[Measure]:
    return [mean(rows), macro(rows, [_name(row.reference) for row in rows], "mean over digits")]


def constants(references: Sequence[Any]) -> dict[str, list[str]]:
    names = [_name(reference) for reference in references]
    return {"most frequent answer": always(most_frequent(names), references), "empty": always("", references)}


def _name(reference: Any) -> str:
    name = reference.get("answer") if isinstance(reference, Mapping) else reference
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"digit_names: {reference!r} names no digit; rows need a key `answer`")
    return name.strip().lower()


SCORER = Scorer(
    default="exact",
    cases={"exact": exact},
    measures=measures,
    constants=constants,
    parsed=lambda record: record["extracted"],
)
