"""A manifest for people: its counts, skips, licences and histograms in the order and words of a page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vlm.data.licences import FLAGS, flags_of

# key in the manifest, or keys -> heading
HISTOGRAMS = (
    (("image_hist", "longer_side"), "Longer side of pictures, pixels"),
    (("image_hist", "aspect"), "Longer over shorter side"),
    (("image_hist", "mode"), "Colours at the source"),
    (("image_hist", "format"), "Format at the source"),
    (("token_hist", "prompt", "counts"), "Length of prompts"),
    (("token_hist", "answer", "counts"), "Length of answers"),
    (("pair_hist", "chosen_minus_rejected"), "Chosen longer than rejected by"),
    (("turn_hist",), "Turns of a sample"),
    (("media_hist",), "Pictures of a sample"),
    (("clip_hist", "seconds"), "Seconds of clips"),
    (("clip_hist", "frames"), "Frames of clips"),
    (("clip_hist", "rate"), "Frames a second at the source"),
)


@dataclass(frozen=True)
class Skipped:
    """Rows left out for one reason. used, allowed: percent of the source's rows; None = not known, no limit."""

    reason: str
    rows: int
    used: float | None
    allowed: float | None


@dataclass(frozen=True)
class Histogram:
    """bins: name -> count, in the order of their numbers.   unit: of what is counted, "" if the heading says it."""

    heading: str
    bins: dict[str, int]
    unit: str = ""


def equation(manifest: Mapping[str, Any]) -> dict[str, int]:
    """The five numbers of rows_in + rows_split = samples_out + skipped + rows_merged."""
    counts = manifest["counts"]
    plain = {name: int(counts.get(name) or 0) for name in ("rows_in", "rows_split", "samples_out", "rows_merged")}
    return {**plain, "skipped": sum((counts.get("skipped") or {}).values())}


def skips(manifest: Mapping[str, Any]) -> list[Skipped]:
    """The most frequent first."""
    counts = manifest["counts"]
    budget = counts.get("budget") or {}
    found = [
        Skipped(reason, rows, *((budget.get(reason) or {}).get(name) for name in ("used", "percent")))
        for reason, rows in (counts.get("skipped") or {}).items()
    ]
    return sorted(found, key=lambda skipped: (-skipped.rows, skipped.reason))


def flags(manifest: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Each licence flag, what it says, and the licences that cause it."""
    return [(flag, FLAGS.get(flag, "no known flag"), causes) for flag, causes in flags_of(manifest).items()]


def histograms(manifest: Mapping[str, Any]) -> Iterator[Histogram]:
    """Those that the manifest has and that say something."""
    for path, heading in HISTOGRAMS:
        node: Any = manifest
        for key in path:
            node = (node or {}).get(key)
        if node:
            unit = (
                str((manifest.get("token_hist") or {}).get("unit", ""))
                if path[0] in ("token_hist", "pair_hist")
                else ""
            )
            bins = {_edge(name): node[name] for name in sorted(node, key=_order)}
            yield Histogram(heading, bins, unit)


def removed_for_evaluation(manifest: Mapping[str, Any]) -> tuple[list[str], dict[str, int]]:
    """Names of the evaluation sets compared with, and how many rows each cost."""
    overlap = manifest.get("overlap") or {}
    against = [
        str(table.get("name", table)) if isinstance(table, dict) else str(table)
        for table in overlap.get("against") or ()
    ]
    removed: Counter[str] = Counter()
    for by, rows in (overlap.get("removed") or {}).items():
        removed[by.rsplit(" by ", 1)[0]] += rows  # "pope/test by pixels"
    return against, dict(removed)


def duplicates(manifest: Mapping[str, Any]) -> list[tuple[str, int]]:
    """What is there more than once, in words with its number."""
    dup = manifest.get("dup") or {}
    words = {
        "image": "samples whose first picture was there before",
        "text": "samples whose text was there before",
        "both": "samples of which both were there before",
        "removed": "rows left out for it",
        "image_removed": "rows left out for a picture that was there before",
    }
    return [(words[name], dup[name]) for name in words if isinstance(dup.get(name), int)]


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    raise AssertionError("the last unit takes every size")


def _edge(name: str) -> str:
    """A bin as people write it: "<=64" is ≤ 64, "-<=64" ≥ -64."""
    return re.sub(r"^<=", "\u2264 ", re.sub(r"^-<=", "\u2265 \u2212", name))


def _order(name: str) -> tuple[int, float, str]:
    """Numbers by value, other names behind them."""
    number = re.search(r"\d+(\.\d+)?", name)
    if number is None:
        return 1, 0.0, name
    return 0, float(number[0]) * (-1 if name.startswith("-") else 1), name
