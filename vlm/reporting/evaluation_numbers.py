"""Records as a reader expects them: a line of words for each leaf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlm.evaluation.text import is_number

COUNTED = ("median_words",)  # floats that are no shares
LABELS = {
    "yes_ratio": "answers read as yes",
    "gold_yes": "right answers that are yes",
    "on_yes": "accuracy where yes is right",
    "on_no": "accuracy where no is right",
    "chi2_p": "chance that predicted and right letters differ so much by accident (χ²)",
    "spread": "standard deviation of the accuracy over the right letters",
    "all_shifts": "right under every shift of the options",
    "unlettered": "accuracy with options shown without letters",
    "unparsable_n": "answers that could not be read",
    "truncated_n": "answers that were cut off",
    "median_words": "words of the median answer",
    "always_yes": "pictures answered yes to every question",
    "always_no": "pictures answered no to every question",
    "too_long_n": "questions too long for the model",
    "missing_n": "questions without a prediction",
    "tied_n": "questions with equally probable answers",
    "refused_n": "questions that could not be put to the model",
}
UNSET = {"token_budget": "the model's own", "limit": "all questions"}  # what a setting that was not given means


def label(key: str) -> str:
    """A key of a record as words."""
    return LABELS.get(key, key.replace("_", " "))


def lines(record: Mapping[str, Any], absent: str = "not measured", path: str = "") -> list[tuple[str, str]]:
    """A nested record as (words, value), one a leaf. absent: what null means, unless the key itself says it."""
    found: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{path}, {label(str(key))}" if path else label(str(key))
        if isinstance(value, Mapping):
            found += lines(value, absent, name)
        else:
            found.append((name, _plain(value, str(key), absent)))
    return found


def _plain(value: Any, key: str, absent: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return UNSET.get(key, absent)
    if isinstance(value, int):
        return f"{value:,}".replace("-", "\u2212")
    if isinstance(value, float):
        if not is_number(value):
            return "undefined"
        if key.endswith("_p"):
            return f"{value:.3g}"
        return (f"{100 * value:.1f} %" if abs(value) <= 1 and key not in COUNTED else f"{value:,.1f}").replace(
            "-", "\u2212"
        )
    if isinstance(value, Mapping):  # in a list
        return " ".join(f"{label(str(name))} {_plain(item, str(name), absent)}" for name, item in value.items())
    if isinstance(value, list):
        parts = [_plain(item, key, absent) for item in value]
        both_numbers = len(value) == 2 and all(isinstance(item, float) for item in value)
        return (" to " if both_numbers else ", ").join(parts) or "none"
    return str(value)
