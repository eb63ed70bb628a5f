"""The option letter in a free answer, by lmms-eval's general extractor: every candidate, the best kind wins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

STRIPPED = (",", ".", "!", "?", ";", ":", "'", '"')  # from the ends, one after another
PHRASES = (
    "the answer is", "answer is", "the correct answer is", "correct answer is", "the best answer is", "best answer is",
    "the correct option is", "correct option is", "the best option is", "best option is",
    "the choice is", "choice is", "the correct choice is", "correct choice is",
    "i choose", "i select", "i pick", "my answer is", "my choice is",
    "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは",
)  # fmt: skip
FORMATS = ("({})", "{}.", "{}:", "{})", "{} ")  # best first; anywhere, even at the end of a word


def mcq_letter(prediction: str, options: Mapping[str, str]) -> str | None:
    """The letter of the best candidate; None where no option letter occurs at all.

    options: letter -> text, of which only the letters are looked at.   Kinds, best first: at the start, at the end,
    behind a phrase such as "the answer is", (A), A., A:, A), "A "; failing all, a letter in any word. Of one kind the
    last place wins.
    Source: lmms-eval, mcq_extract.extract_mcq_answer.
    """
    for mark in STRIPPED:
        prediction = prediction.strip(mark)
    text = f" {prediction} "
    letters = "".join(options)
    for find in (_at_start, _at_end, _behind_phrases):
        if found := find(text, letters):
            return found
    for form in (*FORMATS, "{}"):
        places = {text.rfind(form.format(letter)): letter for letter in letters}
        if max(places) >= 0:
            return places[max(places)]
    return None


def _at_start(text: str, letters: str) -> str | None:
    found = _patterns(letters)[0].match(text)
    return found[1] if found else None


def _at_end(text: str, letters: str) -> str | None:
    found = _patterns(letters)[1].search(text.rstrip()[-2:])
    return found[1] if found else None


def _behind_phrases(text: str, letters: str) -> str | None:
    places: dict[int, str] = {}
    lower = text.lower()
    if len(lower) != len(text):  # a few letters change their length; places must be those of the text
        lower = "".join(sign.lower() if len(sign.lower()) == 1 else sign for sign in text)
    for phrase in PHRASES:
        begin = lower.find(phrase)
        if begin >= 0:
            places |= {text.find(letter, begin + len(phrase)): letter for letter in letters}
    places.pop(-1, None)
    return places[max(places)] if places else None


@lru_cache(maxsize=64)
def _patterns(letters: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    return re.compile(rf"\s*([{letters}])[^a-zA-Z]"), re.compile(rf"[^a-zA-Z]([{letters}])$")
