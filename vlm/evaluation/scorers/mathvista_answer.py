"""How an answer to MathVista is read without a judge, and the form in which it is compared."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

STATED = 'The answer is "'
LETTER = re.compile(r"\(([a-zA-Z])\)")


def extract(answer: str, answer_type: str, choices: Sequence[str] | None, stated: bool) -> str:
    """A text equal to a choice, a number of the wanted kind, or what `The answer is "..."` states; "" for all else.

    choices: of a choice question, else None.   answer_type: integer, float, list or text.   stated: read that form.
    Source: MathVista, extract_answer.py, without the judge.
    """
    if choices is not None and answer in choices:
        return answer
    kind = {"integer": int, "float": float}.get(answer_type)
    if kind is not None:
        try:
            return str(kind(answer))
        except ValueError:  # no such number; it may be stated
            pass
    return _stated(answer) if stated else ""


def normalise(
    extraction: str, answer_type: str, choices: Sequence[str] | None, precision: int | None, empty_is_none: bool
) -> str | None:
    """The form that is compared with the gold answer; None where there is none.

    precision: decimals of a float.   empty_is_none: False sends an empty extraction to the shortest choice.
    Source: MathVista, calculate_score.normalize_extracted_answer.
    """
    if choices is not None:
        extraction = extraction.strip()
        return None if empty_is_none and not extraction else nearest(extraction, choices)[0]
    try:
        if answer_type == "integer":
            return str(int(float(extraction)))
        if answer_type == "float":
            return None if precision is None else str(round(float(extraction), precision))
    except (ValueError, OverflowError):  # no number, or none that is finite
        return None
    return extraction


def nearest(extraction: str, choices: Sequence[str]) -> tuple[str, bool]:
    """The choice that "(B)" or "B" names, else the one of the smallest edit distance; and whether distance decided."""
    bracketed = LETTER.search(extraction)
    letter = bracketed[1].upper() if bracketed else extraction
    place = ord(letter) - ord("A") if len(letter) == 1 else -1
    if 0 <= place < len(choices):
        return choices[place], False
    return min(choices, key=lambda choice: Levenshtein.distance(letter, choice)), letter not in choices


def _stated(answer: str) -> str:
    """What stands between `The answer is "` and the last `".` of that line."""
    for line in answer.split("\n"):
        begin = line.find(STATED)
        end = line.rfind('".')
        if begin >= 0 and end >= begin + len(STATED):
            return line[begin + len(STATED) : end]
    return ""
