"""Multiple choice: gold data of several shapes, a case from a way to read a letter, and the trivial answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from vlm.contracts.benchmark import Case, Measure, Scored
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.gold import value
from vlm.evaluation.scorers.letters import lettered, word_as_letter
from vlm.evaluation.scorers.measures import mean, mean_of
from vlm.evaluation.scorers.trivial import always, at_random

KEYS = ("options", "choices", "candidates")  # what benchmarks call them

Read = Callable[[str, Mapping[str, str]], str | None]  # prediction, letter -> text


def options_of(reference: Any) -> dict[str, str]:
    """Letter -> text of a question's options, in order.

    Options may repeat or be empty: their letters tell them apart. Raises: InputError for none, for more than 26, and
    for letters other than A to Z.
    """
    found = next((reference[key] for key in KEYS if key in reference), None) if isinstance(reference, Mapping) else None
    if isinstance(found, Mapping):
        wrong = [letter for letter in found if letter not in set(ascii_uppercase)]
        if wrong or not found:
            raise InputError(f"options {dict(found)!r} need letters from A to Z: correct the benchmark's file")
        return {letter: str(text) for letter, text in found.items()}
    if isinstance(found, Sequence) and not isinstance(found, str):
        return lettered(found)
    raise InputError(
        f"gold data {reference!r} has no list under any of {', '.join(KEYS)}: correct the benchmark's file"
    )


def gold_of(reference: Any, options: Mapping[str, str]) -> str:
    """The gold letter. Raises: InputError if it is not among the options."""
    gold = value(reference, "gold")
    if gold not in options:
        raise InputError(
            f"gold answer {gold!r} is not among the options {dict(options)!r}: correct the benchmark's file"
        )
    return gold


def by_letter(read: Read) -> Case:
    """A case that compares the letter which `read` finds with the gold letter."""

    def case(prediction: str, reference: Any) -> dict[str, Any]:
        options = options_of(reference)
        gold = gold_of(reference, options)
        extracted = read(prediction, options)
        return {"extracted": extracted, "score": int(extracted == gold)}

    return case


def unparsable(prediction: str, reference: Any, record: Mapping[str, Any]) -> bool:
    """No letter was read; where the public scorer compares whole texts, an empty answer."""
    return record["extracted"] is None if "extracted" in record else not prediction.strip()


def parsed(record: Mapping[str, Any]) -> str | None:
    """The letter that was read, where the record has it."""
    return record.get("extracted")


def constants(references: Sequence[Any]) -> dict[str, list[str]]:
    """The answers that need no model: each letter, the longest and the last option, nothing."""
    options = [options_of(reference) for reference in references]
    letters = sorted({letter for question in options for letter in question})
    return {f"always {letter}": always(letter, references) for letter in letters} | {
        "longest option": [max(question, key=lambda letter: len(question[letter])) for question in options],
        "last option": [max(question) for question in options],
        "random letter": at_random([list(question) for question in options]),
        "empty": always("", references),
    }


def accuracy(rows: Sequence[Scored]) -> list[Measure]:
    """The share of right answers, and of answers whose letter begins a word ("the answer is dog", read as D)."""
    return [mean(rows), misread(rows)]


def misread(rows: Sequence[Scored]) -> Measure:
    """The share of answers in which the shared rule takes the beginning of a word for a letter."""
    words = [float(word_as_letter(row.prediction, options_of(row.reference))) for row in rows]
    return mean_of(words, [1.0] * len(rows), "word_as_letter")
