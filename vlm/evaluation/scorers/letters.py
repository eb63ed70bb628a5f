"""The option letter in a free answer, by the rule that most multiple-choice benchmarks share (`vlmevalkit-mc`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from vlm.contracts.errors import InputError

FAILURE = "Failed to obtain answer via API"
REFUSALS = (
    FAILURE,
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
NO_ANSWER = "Z"
SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
LAST_WORDS = 4  # a letter counts where it stands among as many last words
STATED = re.compile(r"answer is \**([A-D])(\w)?", re.IGNORECASE)
LONGEST = 2  # an answer is compared with the options' texts up to this multiple of their joint length


def shared_letter(prediction: str, options: Mapping[str, str]) -> str | None:
    """The one option that the answer names; None where it names none, or several.

    options: letter -> text.   In this order: a refusal, or the word Z alone, is no answer; a single option letter
    among the last four words; "answer is X"; a single option whose text stands in the answer.
    Source: VLMEvalKit, vlmeval/utils/matching_util.py, without its judge and its random draw. An option without text
    is not looked for here (there it stands in every answer).
    """
    return _read(prediction, options)[0]


def word_as_letter(prediction: str, options: Mapping[str, str]) -> bool:
    """Whether the letter that was read begins a word: "the answer is dog" is read as D. A flaw kept for parity."""
    _, stated = _read(prediction, options)
    return stated is not None and (stated[2] or "").isalpha()


def by_text(prediction: str, options: Mapping[str, str]) -> str | None:
    """The one option whose text stands in the answer, in any case; None for none or several."""
    lower = prediction.lower()
    found = [letter for letter, text in options.items() if text and text.lower() in lower]
    return found[0] if len(found) == 1 else None


def lettered(texts: Sequence[str]) -> dict[str, str]:
    """Letter -> text, from A. Raises: InputError for no options and for more than 26, which have no letters."""
    if not 0 < len(texts) <= len(ascii_uppercase):
        raise InputError(
            f"{len(texts)} options cannot be lettered A to Z: a question needs between 1 and {len(ascii_uppercase)}; "
            f"correct the benchmark's file (the first option is {next(iter(texts), None)!r})"
        )
    return {letter: str(text) for letter, text in zip(ascii_uppercase, texts, strict=False)}


def _read(prediction: str, options: Mapping[str, str]) -> tuple[str | None, re.Match[str] | None]:
    """The letter, and the match of "answer is X" where that decided."""
    if any(refusal in prediction for refusal in REFUSALS):
        return None, None
    words = prediction.translate(SEPARATORS).split()
    known = set(words)
    found = [letter for letter in options if letter in known]
    if len(found) == 1 and words.index(found[0]) >= len(words) - LAST_WORDS:
        return found[0], None
    if not found and NO_ANSWER in known:
        return None, None
    stated = STATED.search(prediction)
    if stated and stated[1].upper() in options:
        return stated[1].upper(), stated
    if len(prediction) > LONGEST * sum(map(len, options.values())):
        return None, None
    return by_text(prediction, options), None
