"""Wilson intervals as a scorer, so that they are held to published rows like every other rule."""

from __future__ import annotations

from typing import Any

from vlm.contracts.benchmark import Case, Scorer
from vlm.evaluation.intervals import wilson


def interval(confidence: float) -> Case:
    """The interval of a prediction [successes, trials]."""

    def case(prediction: Any, reference: Any) -> dict[str, Any]:
        low, high = wilson(*prediction, confidence=confidence)
        return {"low": low, "high": high}

    return case


SCORER = Scorer(
    default="wilson",
    cases={"wilson": interval(0.95), "wilson99": interval(0.99)},
    measures=lambda rows: [],
    constants=lambda references: {},
)
