"""Which option an answer names, by the rules of MMMU's script and of lmms-eval's copy of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

ENDS = ",.!?;:'"  # stripped from both ends, one after another in this order
FEW_WORDS = 5  # in a longer answer the options' texts are looked for


def official_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """ "(B)"; failing that "B" between blanks; failing that, in a longer answer, an option's text; the last counts.

    Returns: None where the original draws at random.   options: letter -> text.
    Source: MMMU, eval_utils.parse_multi_choice_response.
    """
    text = _stripped(answer)
    return (
        _last(text, {letter: f"({letter})" for letter in options})
        or _last(text, {letter: f" {letter} " for letter in options})
        or _by_text(text, options)
    )


def lmms_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """The same without the blank in front ("DNA is" proposes A), and with "B." as a last form.

    Of several letters the last that stands alone counts, the first option's where none does.
    """
    text = _stripped(answer)
    alone = {letter: f" {letter} " for letter in options}
    return (
        _last(text, {letter: f"({letter})" for letter in options})
        or _last(text, {letter: f"{letter} " for letter in options}, alone)
        or _last(text, {letter: f"{letter}." for letter in options}, alone)
        or _by_text(text, options)
    )


def _stripped(answer: str) -> str:
    for mark in ENDS:
        answer = answer.strip(mark)
    return f" {answer} "


def _by_text(text: str, options: Mapping[str, str]) -> str | None:
    if len(text.split()) <= FEW_WORDS:
        return None
    return _last(text.lower(), {letter: option.lower() for letter, option in options.items()})


def _last(text: str, forms: Mapping[str, str], ranks: Mapping[str, str] | None = None) -> str | None:
    """The letter whose form occurs last; ranks: what is looked for instead where several occur."""
    found = [letter for letter, form in forms.items() if form in text]
    ranks = forms if ranks is None else ranks
    return max(found, key=lambda letter: text.rfind(ranks[letter])) if found else None


Rule = Callable[[str, Mapping[str, str]], str | None]
