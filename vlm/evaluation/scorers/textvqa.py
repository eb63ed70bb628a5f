"""TextVQA: open questions about text in pictures, ten people's answers each (Singh et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from vlm.contracts.benchmark import Case, Scorer
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.measures import mean
from vlm.evaluation.scorers.normalise import normalise, normalise_evalai
from vlm.evaluation.scorers.vqa import answers_of, constants, normalisation, normalised_both

PEOPLE = 10  # the LLaVA form takes no other number

lmms = normalised_both(normalise_evalai)
normalise_vlmevalkit = partial(normalise, keep_stop_after_digit=True)
vlmevalkit = normalised_both(normalise_vlmevalkit)


def llava(prediction: str, reference: Any) -> dict[str, Any]:
    """As lmms. Raises: InputError for another number of answers than ten. Source: TextVQAAccuracyEvaluator."""
    count = len(answers_of(reference))
    if count != PEOPLE:
        raise InputError(f"{count} people's answers, the variant llava of TextVQA takes {PEOPLE}: use the variant lmms")
    return lmms(prediction, reference)


def _mean_score(case: Case, predictions: Sequence[str], references: Sequence[Any]) -> float:
    scores = [case(*pair)["score"] for pair in zip(predictions, references, strict=True)]
    return sum(scores) / len(scores)


SCORER = Scorer(
    default="lmms",
    cases={
        "lmms": lmms,
        "llava": llava,
        "vlmevalkit": vlmevalkit,
        "normalize-evalai": normalisation(normalise_evalai),
        "normalize-vlmevalkit": normalisation(normalise_vlmevalkit),
    },
    totals={
        "lmms-agg": lambda predictions, references: {"accuracy": _mean_score(lmms, predictions, references)},
        "vlmevalkit-agg": lambda predictions, references: {
            "accuracy_percent": 100 * _mean_score(vlmevalkit, predictions, references)
        },
    },
    measures=lambda rows: [mean(rows)],
    constants=constants,
)
