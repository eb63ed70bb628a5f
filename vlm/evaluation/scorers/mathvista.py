"""MathVista: mathematics in pictures; an answer is read by rules alone, made comparable, and compared as a text.

The public scorers let a hosted model read the answers. Without one they read a text equal to an option, a bare number,
and `The answer is "..."`; `closed` reads an option's letter too, which the short prompts ask for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlm.contracts.benchmark import Case, Measure, Scored, Scorer
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.letters import NO_ANSWER, REFUSALS, SEPARATORS, lettered, shared_letter
from vlm.evaluation.scorers.mathvista_answer import extract, nearest, normalise
from vlm.evaluation.scorers.measures import mean, mean_of
from vlm.evaluation.scorers.trivial import always

CHOICE = "multi_choice"
TYPES = ("integer", "float", "list")  # of answers that are no choice
COMMON_NUMBER = "2"
STATED_LETTER = 'The answer is "{}".'  # a form in which every rule here reads a letter


def official(prediction: Any, reference: Any) -> dict[str, Any]:
    """MathVista's script over the rule-based extraction; an empty extraction is no answer.

    The gold data may bring the extraction of somebody's reader as `extraction`.
    """
    gold = _gold(reference)
    normalized = normalise(_official_extraction(prediction, reference), gold.type, gold.choices, gold.decimals, True)
    return {"normalized": normalized, "score": int(normalized == gold.answer)}


def closed(prediction: Any, reference: Any) -> dict[str, Any]:
    """As official, and an option's letter or text by the shared rule, and a list as it is written, are read too."""
    gold = _gold(reference)
    said = str(prediction).strip()
    extraction = extract(said, gold.type, gold.choices, stated=True)
    if not extraction and gold.choices is not None:
        extraction = shared_letter(said, lettered(gold.choices)) or ""
    elif not extraction and gold.type == "list" and said.startswith("[") and said.endswith("]"):
        extraction = said
    normalized = normalise(extraction, gold.type, gold.choices, gold.decimals, True)
    return {"extraction": extraction, "normalized": normalized, "score": int(normalized == gold.answer)}


def lmms(stated: bool) -> Case:
    """lmms-eval's form: an empty extraction becomes the shortest choice, and decimals given as 1.0 reject all numbers.

    stated: whether `The answer is "..."` is read.
    """

    def score(prediction: Any, reference: Any) -> dict[str, Any]:
        gold = _gold(reference)
        extraction = extract(str(prediction).strip(), gold.type, gold.choices, stated)
        decimals = None if isinstance(gold.precision, float) else gold.decimals
        normalized = normalise(extraction, gold.type, gold.choices, decimals, False)
        return {"extraction": extraction, "normalized": normalized, "score": int(normalized == gold.answer)}

    return score


def vlmevalkit_prefetch(prediction: Any, reference: Any) -> dict[str, Any]:
    """What VLMEvalKit decides before it asks its judge; None where it would ask.

    A right number 0 counts as undecided there, and a wrong number too.
    """
    gold, said = _gold(reference), str(prediction)
    if gold.choices is not None:
        options = lettered(gold.choices)
        letter = shared_letter(said, options) or _refusal(said, options)
        right = None if letter is None else int(letter == list(options)[gold.choices.index(gold.answer)])
        return {"prefetched": letter, "score": right}
    kind = {"integer": int, "float": float}.get(gold.type)
    try:
        number = kind(said) if kind is not None and kind(said) == kind(gold.answer) else None
    except ValueError:  # no number: the judge would be asked
        number = None
    return {"prefetched": number, "score": 1 if number else None}


def measures(rows: Sequence[Scored]) -> list[Measure]:
    golds = [_gold(row.reference) for row in rows]
    found = [mean(rows)]
    for name in ("choice", *TYPES):
        of_type = [float((gold.choices is not None) if name == "choice" else gold.type == name) for gold in golds]
        found.append(mean_of([row.score * one for row, one in zip(rows, of_type, strict=True)], of_type, name))
    by_distance = [float(_by_distance(row, gold)) for row, gold in zip(rows, golds, strict=True)]
    return [*found, mean_of(by_distance, [1.0] * len(rows), "nearest-choice")]


def constants(references: Sequence[Any]) -> dict[str, list[str]]:
    """A letter for each choice, and a number for the rest or nothing."""
    golds = [_gold(reference) for reference in references]
    answers = {}
    for letter in "AB":
        stated = STATED_LETTER.format(letter)
        answers[f"always {letter}"] = [stated if gold.choices is not None else "" for gold in golds]
    answers[f"always A and {COMMON_NUMBER}"] = [
        STATED_LETTER.format("A") if gold.choices is not None else COMMON_NUMBER for gold in golds
    ]
    answers["empty"] = always("", references)
    return answers


def unparsable(prediction: Any, reference: Any, record: Mapping[str, Any]) -> bool:
    """Nothing was extracted, or what was extracted is no number of the wanted kind."""
    if "prefetched" in record:
        return record["prefetched"] is None
    return not record["normalized"] or record.get("extraction") == ""


def parsed(record: Mapping[str, Any]) -> str | None:
    found = record["prefetched"] if "prefetched" in record else record["normalized"]
    return None if found is None else str(found)


@dataclass(frozen=True)
class Gold:
    """answer: as the benchmark has it.   choices: None unless the question has any.   decimals: of a float."""

    answer: str
    type: str
    choices: list[str] | None
    precision: float | None

    @property
    def decimals(self) -> int | None:
        return None if self.precision is None else int(self.precision)


def _gold(reference: Any) -> Gold:
    if not isinstance(reference, Mapping) or not {"answer", "question_type", "answer_type"} <= set(reference):
        raise InputError(
            f"mathvista: {reference!r} needs the keys answer, question_type, answer_type, choices, precision"
        )
    answer, kind, choices = str(reference["answer"]), reference["answer_type"], None
    if reference["question_type"] == CHOICE:
        choices = [str(choice) for choice in reference.get("choices") or ()]
        if answer not in choices:
            raise InputError(f"mathvista: gold answer {answer!r} is none of the choices {choices!r}")
    elif kind not in TYPES:
        raise InputError(f"mathvista: answer_type {kind!r} of an open question; known are {', '.join(TYPES)}")
    return Gold(answer, kind, choices, reference.get("precision"))


def _official_extraction(prediction: Any, reference: Mapping[str, Any]) -> str:
    if "extraction" in reference:
        return str(reference["extraction"])
    gold = _gold(reference)
    return extract(str(prediction), gold.type, gold.choices, stated=True)


def _by_distance(row: Scored, gold: Gold) -> bool:
    if gold.choices is None or row.unparsable:
        return False
    extraction = _official_extraction(row.prediction, row.reference).strip()
    return bool(extraction) and nearest(extraction, gold.choices)[1]


def _refusal(said: str, options: Mapping[str, str]) -> str | None:
    """ "Z" for a refusal, and for the word Z where no option's letter is a word."""
    words = set(said.translate(SEPARATORS).split())
    if any(refusal in said for refusal in REFUSALS[1:]) or (NO_ANSWER in words and not words & set(options)):
        return NO_ANSWER
    return None


SCORER = Scorer(
    default="official",
    cases={
        "official": official,
        "closed": closed,
        "lmms": lmms(stated=False),
        "lmms-quick": lmms(stated=True),
        "vlmevalkit-prefetch": vlmevalkit_prefetch,
    },
    measures=measures,
    constants=constants,
    unparsable=unparsable,
    parsed=parsed,
)
