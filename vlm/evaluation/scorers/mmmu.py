"""MMMU: college questions of thirty subjects, most with options, some open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlm.contracts.benchmark import Case, Measure, Scored, Scorer
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.letters import lettered, shared_letter
from vlm.evaluation.scorers.measures import mean, mean_of
from vlm.evaluation.scorers.mmmu_choice import Rule, lmms_letter, official_letter
from vlm.evaluation.scorers.mmmu_open import is_right, read
from vlm.evaluation.scorers.trivial import always, most_frequent

OPEN = "open"
OTHER = "Other Answers"  # what VLMEvalKit sets beside the gold answer of an open question


def official_mc(prediction: Any, reference: Any) -> dict[str, Any]:
    return _drawn(official_letter, prediction, reference)


def lmms_mc(prediction: Any, reference: Any) -> dict[str, Any]:
    return _drawn(lmms_letter, prediction, reference)


def vlmevalkit_mc(prediction: Any, reference: Any) -> dict[str, Any]:
    """VLMEvalKit's rule; it turns an open question into a choice between the gold answer and "Other Answers"."""
    if _is_open(reference):
        read_as = [shared_letter(str(prediction), {"A": gold, "B": OTHER}) for gold in _golds(reference)]
        letter, gold = ("A" if "A" in read_as else read_as[0]), "A"
    else:
        options, gold = _options(reference)
        letter = shared_letter(str(prediction), options)
    return {"extracted": letter, "score": int(letter == gold)}


def official_open(prediction: Any, reference: Any) -> dict[str, Any]:
    """MMMU's own rule for open questions."""
    texts, numbers = read(str(prediction))
    right = is_right(texts, numbers, _golds(reference))
    return {"parsed_strings": texts, "parsed_numbers": numbers, "score": int(right)}


def lmms_open(prediction: Any, reference: Any) -> dict[str, Any]:
    """lmms-eval's copy keeps one of the texts that were read and compares the gold answer with its single letters.

    A gold text of one letter is padded with a blank, so it never stands in a single letter: nothing is ever right.
    """
    _golds(reference)
    return {"score": 0}


def by_kind(choice: Case, open_answer: Case) -> Case:
    """A rule for rows with options and one for open rows, told apart by the gold data's `question_type`."""

    def score(prediction: Any, reference: Any) -> dict[str, Any]:
        return (open_answer if _is_open(reference) else choice)(prediction, reference)

    return score


def official_total(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
    """Accuracy of each subject and over all rows; choices that the original draws at random are wrong and counted."""
    records = [official(said, gold) for said, gold in zip(predictions, references, strict=True)]
    by_subject: dict[str, list[int]] = {}
    for record, reference in zip(records, references, strict=True):
        by_subject.setdefault(_subject(reference), []).append(record["score"])
    return {
        "per_subject": {
            name: {"acc": sum(scores) / len(scores), "num_example": len(scores)} for name, scores in by_subject.items()
        },
        "overall": sum(record["score"] for record in records) / len(records) if records else None,
        "unparsable_mc": sum(bool(record.get("random_fallback")) for record in records),
    }


def measures(rows: Sequence[Scored]) -> list[Measure]:
    is_open = [float(_is_open(row.reference)) for row in rows]
    is_choice = [1.0 - share for share in is_open]
    return [
        mean(rows),
        mean_of([row.score * one for row, one in zip(rows, is_choice, strict=True)], is_choice, "choice"),
        mean_of([row.score * one for row, one in zip(rows, is_open, strict=True)], is_open, OPEN),
    ]


def constants(references: Sequence[Any]) -> dict[str, list[str]]:
    """Letters for the rows with options, an empty answer for open ones.

    The best letter of each subject is chosen on the very rows it is scored on: the most that a prior can give.
    """
    known = [None if _is_open(reference) else _options(reference) for reference in references]
    golds = sorted({row[1] for row in known if row})
    answers = {f"always {letter}": [letter if row else "" for row in known] for letter in golds}
    best: dict[str, str] = {}
    for subject in {_subject(reference) for reference in references}:
        of_subject = [
            row[1] for row, reference in zip(known, references, strict=True) if row and _subject(reference) == subject
        ]
        best[subject] = most_frequent(of_subject) if of_subject else ""
    answers["best letter of each subject"] = [
        best[_subject(reference)] if row else "" for row, reference in zip(known, references, strict=True)
    ]
    answers["longest option"] = [max(row[0], key=lambda letter: len(row[0][letter])) if row else "" for row in known]
    answers["last option"] = [list(row[0])[-1] if row else "" for row in known]
    answers["empty"] = always("", references)
    return answers


def unparsable(prediction: Any, reference: Any, record: Mapping[str, Any]) -> bool:
    """No letter was read; of an open row, nothing was said."""
    return record["extracted"] is None if "extracted" in record else not str(prediction).strip()


def parsed(record: Mapping[str, Any]) -> str | None:
    if "extracted" in record:
        return record["extracted"]
    found = [*record.get("parsed_strings", ()), *map(str, record.get("parsed_numbers", ()))]
    return " | ".join(found) if found else None


def _drawn(rule: Rule, prediction: Any, reference: Any) -> dict[str, Any]:
    options, gold = _options(reference)
    letter = rule(str(prediction), options)
    return {"extracted": letter, "random_fallback": letter is None, "score": int(letter == gold)}


def _is_open(reference: Any) -> bool:
    return not isinstance(reference, Mapping) or reference.get("question_type") == OPEN


def _subject(reference: Any) -> str:
    return str(reference["subject"]) if isinstance(reference, Mapping) and "subject" in reference else ""


def _options(reference: Any) -> tuple[Mapping[str, str], str]:
    """Letter -> text, and the gold letter."""
    if not isinstance(reference, Mapping) or not reference.get("options"):
        raise InputError(
            f"mmmu: {reference!r} has no options; a row that is no open question needs `options` and `gold`"
        )
    listed, gold = reference["options"], reference.get("gold")
    options = dict(listed) if isinstance(listed, Mapping) else lettered(listed)
    if gold not in options:
        raise InputError(f"mmmu: gold answer {gold!r} is none of the letters {', '.join(options)} of {listed!r}")
    return options, str(gold)


def _golds(reference: Any) -> list[str]:
    """The gold answers of an open question."""
    gold = reference.get("gold") if isinstance(reference, Mapping) else reference
    golds = [gold] if isinstance(gold, str | int | float) else gold
    if not isinstance(golds, Sequence) or not golds or not all(str(one).strip() for one in golds):
        raise InputError(
            f"mmmu: the gold answer {gold!r} of an open question is empty; it needs a text or a list of texts"
        )
    return [str(one) for one in golds]


official = by_kind(official_mc, official_open)

SCORER = Scorer(
    default="official",
    cases={
        "official": official,
        "lmms": by_kind(lmms_mc, lmms_open),
        "vlmevalkit": vlmevalkit_mc,
        "official-mc": official_mc,
        "lmms-mc": lmms_mc,
        "vlmevalkit-mc": vlmevalkit_mc,
        "official-open": official_open,
        "lmms-open": lmms_open,
    },
    totals={"official-agg": official_total},
    measures=measures,
    constants=constants,
    unparsable=unparsable,
    parsed=parsed,
)
