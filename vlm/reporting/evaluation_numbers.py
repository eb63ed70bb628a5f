"""Scores as a reader expects them: shares as percent, sums of points as points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlm.reporting.evaluation_records import Interval, is_number

MANY = 10_000  # questions from which a second decimal of a percentage says something
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
}


def amount(value: float | None, top: float = 1.0, n: int = 0) -> str:
    """43.6 %, of a share; 838.8, of points. top: the greatest value, 1 for a share.   n: questions behind it."""
    if value is None or not is_number(value):
        return "undefined"
    return f"{_figures(value, top, n)} %" if top == 1 else _figures(value, top, n)


def span(interval: Interval, top: float = 1.0, n: int = 0) -> str:
    """41.2 to 46.0 %; empty where there is no interval."""
    if interval is None or not all(is_number(end) for end in interval):
        return ""
    low, high = (_figures(end or 0.0, top, n) for end in interval)
    return f"{low} to {high} %" if top == 1 else f"{low} to {high}"


def gap(difference: float | None, top: float = 1.0, n: int = 0) -> str:
    """+3.2: a difference of two scores, in points."""
    if difference is None or not is_number(difference):
        return "undefined"
    return _signed(difference, top, n)


def gap_span(interval: Interval, top: float = 1.0, n: int = 0) -> str:
    """+1.0 to +5.4; empty where there is no interval."""
    if interval is None or not all(is_number(end) for end in interval):
        return ""
    return " to ".join(_signed(end or 0.0, top, n) for end in interval)


def share(value: float) -> str:
    """0 %, < 0.1 % or 12.3 %: a small share never looks like none."""
    if 0 < value < 0.001:
        return "< 0.1 %"
    return f"{100 * value:.1f} %" if value else "0 %"


def label(key: str) -> str:
    """A key of a record as words."""
    return LABELS.get(key, key.replace("_", " "))


def lines(record: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    """A nested record as (words, value), one a leaf."""
    found: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{path}, {label(str(key))}" if path else label(str(key))
        if isinstance(value, Mapping):
            found += lines(value, name)
        else:
            found.append((name, _plain(value, str(key))))
    return found


# What a setting that was not given means.
UNSET = {"token_budget": "the model's own", "limit": "all questions"}


def _plain(value: Any, key: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return UNSET.get(key, "not measured")
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
    if isinstance(value, list):
        parts = [_plain(item, key) for item in value]
        both_numbers = len(value) == 2 and all(isinstance(item, float) for item in value)
        return (" to " if both_numbers else ", ").join(parts) or "none"
    return str(value)


def _figures(value: float, top: float, n: int) -> str:
    if top == 1:
        value, digits = 100 * value, 2 if n >= MANY else 1
    else:
        digits = 1 if top >= 100 else 3
    return f"{value:,.{digits}f}".replace("-", "\u2212")


def _signed(value: float, top: float, n: int) -> str:
    text = _figures(abs(value), top, n)
    if not float(text.replace(",", "")):
        return text
    return f"+{text}" if value > 0 else f"\u2212{text}"
