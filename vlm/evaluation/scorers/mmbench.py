"""MMBench: a question is asked once for each circular shift of its options; right if all are right (Liu et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np

from vlm.contracts.benchmark import Case, Measure, Scored, Scorer
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.choices import Read, by_letter, constants, gold_of, misread, options_of, parsed, unparsable
from vlm.evaluation.scorers.letters import FAILURE, by_text, shared_letter
from vlm.evaluation.scorers.mcq_extract import mcq_letter
from vlm.evaluation.scorers.measures import mean, ratio

ROLL = 1_000_000  # an index is question + ROLL x shift
LMMS_LETTERS = ascii_uppercase[:5]  # looked for whatever the question has
LMMS_FORMS = (
    "({})", "({}).", "{}.", "{},", "{}:", "{})", "{}).", ":{}", ":{},", ":{}.", ":{})", ":{}).",
)  # fmt: skip
LMMS_ARTICLE = 3  # words up to which a lone A is no article


def lmms_letter(prediction: str, options: Mapping[str, str]) -> str | None:
    """A lone letter A to E, alone or in brackets and stops; else an option's text; else the general extractor.

    Source: lmms-eval, MMBench_Evaluator without a judge.
    """
    return _lmms_by_word(prediction) or by_text(prediction, options) or mcq_letter(prediction, options)


def measures(rows: Sequence[Scored]) -> list[Measure]:
    """Questions right in all shifts; right in shift 0; the mean over shifts.

    Raises: InputError for a question without exactly one row for each shift.
    """
    groups: dict[Any, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(_question(row), []).append(number)
    whole, first = np.zeros((len(rows), 2)), np.zeros((len(rows), 2))
    for question, members in groups.items():
        shifts = [_shift(rows[number], place) for place, number in enumerate(members)]
        expected = len(options_of(rows[members[0]].reference))
        if sorted(shifts) != list(range(expected)):
            raise InputError(
                f"MMBench: question {question!r} has shifts {sorted(shifts)} of {expected} options, one of each is "
                "needed: score all rows of a question, and keep groups whole under a limit"
            )
        whole[members[0]] = min(rows[number].score for number in members), 1.0
        start = members[shifts.index(0)]
        first[start] = rows[start].score, 1.0
    return [
        Measure("circular_accuracy", whole, _share),
        Measure("first_shift_accuracy", first, _share),
        mean(rows, "per_shift_accuracy"),
        misread(rows),
    ]


def circular(read: Read) -> Case:
    """A case for one shift, and for the list of a question's shifts scored together."""
    single = by_letter(read)

    def case(prediction: Any, reference: Any) -> dict[str, Any]:
        if isinstance(prediction, str):
            return single(prediction, reference)
        return {"hit": _hit(read, prediction, reference)}

    return case


def circular_total(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[Any]]) -> dict[str, float]:
    """Of questions that are lists of shifts: all shifts right, any shift, the first, and by lmms-eval's reading."""
    if any(isinstance(question, str) for question in predictions):
        raise InputError("MMBench: answers to one question's shifts are scored with the variant circular")
    questions = list(zip(predictions, references, strict=True))
    rolls = [[_right(shared_letter, *roll) for roll in zip(*question, strict=True)] for question in questions]
    return {
        "circular_accuracy": sum(map(all, rolls)) / len(rolls),
        "per_roll_accuracy": sum(map(sum, rolls)) / sum(map(len, rolls)),
        "vanilla_first_roll_accuracy": sum(question[0] for question in rolls) / len(rolls),
        "lmms_static_accuracy": sum(_hit(lmms_letter, *question) for question in questions) / len(questions),
    }


def _lmms_by_word(prediction: str) -> str | None:
    if FAILURE in prediction:
        return None
    words = prediction.split()
    known = set(words)
    alone = [letter for letter in LMMS_LETTERS if letter in known]
    if len(alone) == 1 and not (alone == ["A"] and len(words) > LMMS_ARTICLE):
        return alone[0]
    for form in LMMS_FORMS:
        found = [letter for letter in LMMS_LETTERS if form.format(letter) in known]
        if len(found) == 1:
            return found[0]
    return None


def _hit(read: Read, predictions: Sequence[str], references: Sequence[Any]) -> int:
    if not predictions or len(predictions) != len(references):
        raise InputError(f"MMBench: {len(predictions)} answers to {len(references)} shifts of a question")
    return int(all(_right(read, *roll) for roll in zip(predictions, references, strict=True)))


def _right(read: Read, prediction: str, reference: Any) -> bool:
    options = options_of(reference)
    return read(prediction, options) == gold_of(reference, options)


def _question(row: Scored) -> Any:
    return int(row.reference["index"]) % ROLL if "index" in row.reference else row.group


def _shift(row: Scored, place: int) -> int:
    return int(row.reference["index"]) // ROLL if "index" in row.reference else place


def _share(sums: np.ndarray) -> np.ndarray:
    return ratio(sums[..., 0], sums[..., 1])


SCORER = Scorer(
    listed=("circular", "circular-lmms"),
    whole_groups=True,
    default="circular",
    cases={
        "circular": circular(shared_letter),
        "circular-lmms": circular(lmms_letter),
        "vlmevalkit-mc": by_letter(shared_letter),
        "lmms": by_letter(lmms_letter),
        "mcq-extract": by_letter(mcq_letter),
    },
    totals={"circular-agg": circular_total},
    measures=measures,
    constants=constants,
    unparsable=unparsable,
    parsed=parsed,
)
