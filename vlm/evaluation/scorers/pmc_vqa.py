"""PMC-VQA: questions about figures of medical papers, four options (Zhang et al. 2023)."""

from __future__ import annotations

from vlm.contracts.benchmark import Scorer
from vlm.evaluation.scorers.choices import accuracy, by_letter, constants, parsed, unparsable
from vlm.evaluation.scorers.letters import shared_letter

SCORER = Scorer(
    default="vlmevalkit-mc",
    cases={"vlmevalkit-mc": by_letter(shared_letter)},
    measures=accuracy,
    constants=constants,
    unparsable=unparsable,
    parsed=parsed,
)
