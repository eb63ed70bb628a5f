"""Yes or no: in a free answer, by the word; in the gold data; and the trivial answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.normalise import without_punctuation
from vlm.evaluation.scorers.trivial import always, at_random

Label = Literal["yes", "no"]


def yes_or_no(text: str) -> Label | None:
    """The one of the words yes and no that stands in the text; None for neither or both.

    Source: VLMEvalKit, YOrN_Extraction.
    """
    words = set(without_punctuation(text.lower(), keep_stop_after_digit=True).split())
    if ("yes" in words) == ("no" in words):
        return None
    return "yes" if "yes" in words else "no"


def gold_label(reference: Any, key: str) -> Label:
    """The gold answer. reference: the answer itself, or gold data that has it under `key`. Raises: InputError."""
    answer = reference.get(key) if isinstance(reference, Mapping) else reference
    label = str(answer).strip().lower()
    if label == "yes" or label == "no":
        return label
    raise InputError(f"gold answer {answer!r} is neither yes nor no in {reference!r}: correct the benchmark's file")


def constants(references: Sequence[Any]) -> dict[str, list[str]]:
    """The answers that need no model."""
    words = ("yes", "no")
    return {f"always {word}": always(word, references) for word in words} | {
        "random answer": at_random([words] * len(references)),
        "empty": always("", references),
    }
