"""VQA accuracy: an answer is right as far as three of the other people gave it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlm.contracts.benchmark import Case
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.trivial import always, most_frequent

ENOUGH = 3  # equal answers of other people that make an answer right


def vqa_accuracy(answer: str, people: Sequence[str]) -> float:
    """The mean over people of min(1, equal answers among the others / 3), 0..1; leaves out by position.

    Source: Antol et al. 2015; the evaluation code of VQA.
    """
    equal = [answer == person for person in people]
    return sum(min(1.0, (sum(equal) - own) / ENOUGH) for own in equal) / len(equal)


def normalised_both(normalise: Callable[[str], str]) -> Case:
    """A case that compares the normalised answer with the normalised answers of people."""

    def case(prediction: str, reference: Any) -> dict[str, Any]:
        people = [normalise(person) for person in answers_of(reference)]
        return {"score": vqa_accuracy(normalise(prediction), people)}

    return case


def normalisation(normalise: Callable[[str], str]) -> Case:
    """A case that shows a text in the form in which it is compared; nothing is scored."""
    return lambda prediction, reference: {"normalized": normalise(prediction)}


def answers_of(reference: Any) -> list[str]:
    """What people answered. reference: their answers, or gold data with them under "answers". Raises: InputError."""
    found = reference.get("answers") if isinstance(reference, Mapping) else reference
    if not isinstance(found, Sequence) or isinstance(found, str) or not found:
        raise InputError(f"gold data {reference!r} has no list of answers: correct the benchmark's file")
    return [str(answer) for answer in found]


def constants(references: Sequence[Any]) -> dict[str, list[str]]:
    """The answers that need no model: yes, no, what people said most often, nothing."""
    most = most_frequent([answer for reference in references for answer in answers_of(reference)])
    named = {"always yes": "yes", "always no": "no", "most frequent answer": most, "empty": ""}
    return {name: always(answer, references) for name, answer in named.items()}
