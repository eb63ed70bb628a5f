"""Video-MME: three questions a video of up to an hour, four options (Fu et al. 2024)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vlm.contracts.benchmark import Scorer
from vlm.evaluation.scorers.choices import accuracy, by_letter, constants, parsed, unparsable
from vlm.evaluation.scorers.gold import value
from vlm.evaluation.scorers.letters import shared_letter
from vlm.evaluation.scorers.mcq_extract import mcq_letter

DURATIONS = ("short", "medium", "long")
# Removed one after another; two pairs are one because the original misses a comma between them.
PREFIXES = (
    "The best answer is", "The correct answer is", "The answer is", "The answer",
    "The best option isThe correct option is", "Best answer:Best option:", "Answer:", "Option:",
)  # fmt: skip
CAPITAL = re.compile("[ABCD]")
LETTERED = re.compile(r"[A-Z]\. ")  # the benchmark's options begin with their letter


def first_capital(prediction: str, options: Mapping[str, str]) -> str | None:
    """The first capital A to D behind known prefixes, in whatever word. Source: VLMEvalKit, extract_characters_regex."""
    for prefix in PREFIXES:
        prediction = prediction.replace(prefix, "")
    found = CAPITAL.search(prediction)
    return found[0] if found else None


def matched(prediction: str, options: Mapping[str, str]) -> str | None:
    """The first capital, else the shared rule over the bare texts. Source: VLMEvalKit, videomme.evaluate."""
    bare = {letter: LETTERED.sub("", text, count=1).removesuffix(".") for letter, text in options.items()}
    return first_capital(prediction, options) or shared_letter(prediction, bare)


def lmms_total(predictions: Sequence[str], references: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Percentages over all rows and by duration."""
    rows = _scored("lmms", predictions, references)
    lengths = {name: [score for score, row in rows if value(row, "duration") == name] for name in DURATIONS}
    return {
        "overall_percent": 100 * sum(score for score, _ in rows) / len(rows),
        "by_duration_percent": {name: 100 * sum(part) / len(part) for name, part in lengths.items() if part},
    }


def vlmevalkit_total(predictions: Sequence[str], references: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By duration and overall: accuracies as texts of three decimals, over all rows, by domain and by task type."""
    rows = _scored("vlmevalkit-em", predictions, references)
    parts = {name: [pair for pair in rows if value(pair[1], "duration") == name] for name in DURATIONS} | {
        "overall": rows
    }
    return {
        name: {"overall": _text([score for score, _ in part])}
        | {key: _by(part, key) for key in ("domain", "task_type")}
        for name, part in parts.items()
        if part
    }


def _scored(variant: str, predictions: Sequence[str], references: Sequence[Mapping[str, Any]]) -> list[tuple[int, Any]]:
    pairs = zip(predictions, references, strict=True)
    return [(CASES[variant](prediction, reference)["score"], reference) for prediction, reference in pairs]


def _by(rows: Sequence[tuple[int, Any]], key: str) -> dict[str, str]:
    found: dict[str, list[int]] = {}
    for score, row in rows:
        found.setdefault(value(row, key), []).append(score)
    return {name: _text(scores) for name, scores in found.items()}


def _text(scores: Sequence[int]) -> str:
    return f"{sum(scores) / len(scores):.3f}"


CASES = {
    "vlmevalkit-mc": by_letter(shared_letter),
    "lmms": by_letter(mcq_letter),
    "vlmevalkit": by_letter(first_capital),
    "vlmevalkit-em": by_letter(matched),
}

SCORER = Scorer(
    default="vlmevalkit-mc",
    cases=CASES,
    totals={"lmms-agg": lmms_total, "vlmevalkit-agg": vlmevalkit_total},
    measures=accuracy,
    constants=constants,
    unparsable=unparsable,
    parsed=parsed,
)
