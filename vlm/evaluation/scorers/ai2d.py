"""AI2D: questions about diagrams of school science, four options (Kembhavi et al. 2016)."""

from __future__ import annotations

import re
from string import punctuation
from typing import Any

from vlm.contracts.benchmark import Scorer
from vlm.evaluation.scorers.choices import accuracy, by_letter, constants, gold_of, options_of, parsed, unparsable
from vlm.evaluation.scorers.letters import shared_letter

LEADING = re.compile(r"\s*([A-Z])\.")
NO_PUNCTUATION = str.maketrans("", "", punctuation)


def lmms(prediction: str, reference: Any) -> dict[str, Any]:
    """Equal to the gold letter but for case and ASCII punctuation; "B. dog" is cut to B, blanks are kept.

    Source: lmms-eval, tasks/ai2d.
    """
    gold = gold_of(reference, options_of(reference))
    leading = LEADING.match(prediction)
    filtered = leading[1] if leading else prediction
    right = filtered.lower().translate(NO_PUNCTUATION) == gold.lower()
    return {"filtered": filtered, "score": float(right)}


SCORER = Scorer(
    default="vlmevalkit-mc",
    cases={"vlmevalkit-mc": by_letter(shared_letter), "lmms": lmms},
    measures=accuracy,
    constants=constants,
    unparsable=unparsable,
    parsed=parsed,
)
