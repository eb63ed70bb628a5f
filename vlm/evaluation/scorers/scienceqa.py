"""ScienceQA: questions of school science, some with a picture, two to five choices (Lu et al. 2022)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vlm.contracts.benchmark import Scorer
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.choices import by_letter, constants, gold_of, options_of, parsed, unparsable
from vlm.evaluation.scorers.gold import value
from vlm.evaluation.scorers.letters import shared_letter
from vlm.evaluation.scorers.measures import mean

LETTERS = "ABCDE"
STATED = re.compile(r"The answer is ([A-Z]).")


def llava_letter(prediction: str, options: Mapping[str, str]) -> str | None:
    """The letter alone; in front, with full stop and blank; or once in "The answer is X" and one more character.

    Raises: InputError for more than five options.   Source: LLaVA, eval_science_qa.py.
    """
    if len(options) > len(LETTERS):
        raise InputError(f"{len(options)} choices, ScienceQA's variant llava reads {len(LETTERS)}: use vlmevalkit-mc")
    if prediction in options:
        return prediction
    is_leading = prediction[:1] in LETTERS and prediction[1:3] == ". "
    stated = [prediction[0]] if is_leading else STATED.findall(prediction)
    return stated[0] if len(stated) == 1 and stated[0] in options else None


def lmms(prediction: str, reference: Any) -> dict[str, Any]:
    """The letter in any case, or in front as a capital with a full stop. Source: lmms-eval, sqa_process_results."""
    gold = gold_of(reference, options_of(reference))
    right = prediction.strip().lower() == gold.lower() or prediction.startswith(f"{gold}.")
    return {"score": float(right)}


def llava_total(predictions: Sequence[str], references: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Counts and percentages, of all rows and of those with a picture."""
    records = [LLAVA(*pair) for pair in zip(predictions, references, strict=True)]
    right = [record["score"] for record in records]
    with_image = [score for score, reference in zip(right, references, strict=True) if value(reference, "has_image")]
    return {
        "total": len(right),
        "correct": sum(right),
        "accuracy_percent_2dp": 100 * sum(right) / len(right),
        "img_accuracy_percent_2dp": 100 * sum(with_image) / len(with_image) if with_image else float("nan"),
        "unparsable": sum(record["extracted"] is None for record in records),
    }


LLAVA = by_letter(llava_letter)

SCORER = Scorer(
    default="llava",
    cases={"llava": LLAVA, "vlmevalkit-mc": by_letter(shared_letter), "lmms": lmms},
    totals={"llava-agg": llava_total},
    measures=lambda rows: [mean(rows)],
    constants=constants,
    unparsable=unparsable,
    parsed=parsed,
)
