"""Results as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEAD = ("benchmark", "n", "score", "95 %", "best baseline", "verdict", "pictures")


def table(entries: Sequence[Mapping[str, Any]]) -> str:
    """A line for each headline and its splits."""
    rows = [HEAD, *(_row(entry) for entry in entries if entry["headline"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def figure(value: float | None, top: float) -> str:
    """Shares as percent, points as they are; "-" for what is undefined."""
    if value is None:
        return "-"
    return f"{100 * value:.1f}" if top == 1.0 else f"{value:.1f}"


def title(entry: Mapping[str, Any]) -> str:
    """Benchmark with split, variant and count: a score never stands without them."""
    split = "" if entry["split"] == "all" else f" {entry['split']}"
    return f"{entry['benchmark']}{split} ({entry['variant']}, n={entry['n']})"


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    top = entry["top"]
    low, high = entry["interval"]
    known = {name: found["score"] for name, found in entry["baselines"].items() if found["score"] is not None}
    best = max(known, key=known.__getitem__) if known else None
    pictures = entry["details"]["pictures"]
    return (
        f"{entry['benchmark']}{'' if entry['split'] == 'all' else ' ' + entry['split']} ({entry['variant']})",
        str(entry["n"]),
        f"{figure(entry['score'], top)} {entry['metric']}",
        f"{figure(low, top)}..{figure(high, top)}",
        f"{figure(known[best], top)} {best}" if best else "-",
        entry["verdict"],
        pictures["verdict"] if pictures else "-",
    )
