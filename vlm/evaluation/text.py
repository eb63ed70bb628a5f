"""Results as text: figures as a reader expects them, and the table of the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

HEAD = ("benchmark", "n", "score", "95 %", "best baseline", "verdict", "pictures")
MANY = 10_000  # questions from which a second decimal of a percentage says something
MOST_OF_VALUE = 40  # characters of a changed setting that a title shows
Interval = Sequence[float | None] | None


def table(entries: Sequence[Mapping[str, Any]]) -> str:
    """A line for each headline and its splits."""
    rows = [HEAD, *(_row(entry) for entry in entries if entry["headline"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    top, n, baselines = entry["top"], entry["n"], entry["baselines"]
    best = best_baseline({name: found["score"] for name, found in baselines.items()})
    pictures = entry["details"]["pictures"]
    return (
        title(entry["benchmark"], entry["split"], entry["variant"], entry["settings"]),
        str(n),
        f"{amount(entry['score'], top, n)} {entry['metric']}",
        span(entry["interval"], top, n) or "-",
        f"{amount(baselines[best]['score'], top, n)} {best}" if best else "-",
        entry["verdict"],
        pictures["verdict"] if pictures else "-",
    )


def title(benchmark: str, split: str, variant: str, settings: Mapping[str, Any], n: int | None = None) -> str:
    """Split, variant, the settings without which the number would be misread, and the count: pope (lmms, n=9000)."""
    marks = [variant]
    if settings.get("ocr") not in (None, "none"):
        marks.append(f"ocr={settings['ocr']}")
    if settings.get("limit") is not None:
        marks.append(f"limit={settings['limit']}, seed {settings.get('seed', 'unknown')}")
    marks += [f"{key}={shortened(value)}" for key, value in settings.get("changed", {}).items()]
    if settings.get("token_budget") is not None:
        marks.append(f"token_budget={settings['token_budget']}")
    if n is not None:
        marks.append(f"n={n}")
    return f"{benchmark}{'' if split == 'all' else f' {split}'} ({', '.join(marks)})"


def shortened(value: Any) -> str:
    """A changed setting, as much of it as a title has room for."""
    text = " ".join(str(value).split())
    return text if len(text) <= MOST_OF_VALUE else f"{text[: MOST_OF_VALUE - 1]}…"


def best_baseline(scores: Mapping[str, float | None]) -> str | None:
    """Name of the baseline with the greatest score, the first of equal ones; None if none is defined."""
    known = {name: score for name, score in scores.items() if score is not None and is_number(score)}
    return max(known, key=known.__getitem__) if known else None


def is_number(value: float | None) -> bool:
    """Whether a figure is there and defined."""
    return value is not None and math.isfinite(value)


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
