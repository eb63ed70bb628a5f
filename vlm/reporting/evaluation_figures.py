"""Small inline drawings beside numbers: a score's interval among its baselines, a difference, two shares.

Colours are left to the page's style sheet, as in curves.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from vlm.evaluation.text import amount, gap, gap_span, is_number, span
from vlm.reporting.evaluation_records import Baseline, Entry

WIDTH, HEIGHT, MARGIN = 180, 26, 5  # units of the view box; the page scales it
BASE = 20  # where the axis lies


def score_figure(entry: Entry) -> str:
    """The score with its interval on an axis from 0 to the metric's greatest value; a tick for each baseline."""
    words = f"score {amount(entry.score, entry.top, entry.n)}"
    if entry.interval:
        words += f", 95 % from {span(entry.interval, entry.top, entry.n)}"
    if entry.best:
        words += f"; best baseline {entry.best[0]} {amount(entry.best[1].score, entry.top, entry.n)}"
    svg = _svg(WIDTH, HEIGHT, words)

    def place(value: float) -> float:
        return MARGIN + min(max(value / entry.top, 0.0), 1.0) * (WIDTH - 2 * MARGIN)

    _line(svg, "axis", MARGIN, BASE, WIDTH - MARGIN, BASE)
    for quarter in range(5):
        x = place(quarter / 4 * entry.top)
        _line(svg, "axis", x, BASE, x, BASE + 3)
    for name, baseline in entry.baselines.items():
        if baseline.score is not None and is_number(baseline.score):
            best = entry.best is not None and name == entry.best[0]
            x = place(baseline.score)
            _line(svg, "best" if best else "base", x, 3 if best else 13, x, BASE)
    kind = "above" if entry.is_above else "not-above"
    ends = [end for end in entry.interval or () if end is not None and is_number(end)]
    if len(ends) == 2:
        _line(svg, f"range {kind}", place(ends[0]), 9, place(ends[1]), 9)
    if entry.score is not None and is_number(entry.score):
        dot = {"class": f"dot {kind}", "cx": f"{place(entry.score):.1f}", "cy": "9", "r": "3.4"}
        ElementTree.SubElement(svg, "circle", dot)
    return ElementTree.tostring(svg, encoding="unicode")


def difference_figure(baseline: Baseline, entry: Entry, reach: float) -> str:
    """Model minus baseline with its paired interval, around 0.

    reach: the greatest value to be drawn, see `reach_of`.
    """
    words = f"difference {gap(baseline.difference, entry.top, entry.n)}"
    if baseline.interval:
        words += f", 95 % from {gap_span(baseline.interval, entry.top, entry.n)}"
    svg = _svg(WIDTH, 16, words)
    middle = WIDTH / 2

    def place(value: float) -> float:
        return middle + value / reach * (middle - MARGIN)

    _line(svg, "axis", MARGIN, 8, WIDTH - MARGIN, 8)
    _line(svg, "best", middle, 1, middle, 15)
    ends = [end for end in baseline.interval or () if end is not None and is_number(end)]
    kind = "above" if ends and ends[0] > 0 else "not-above"
    if len(ends) == 2:
        _line(svg, f"range {kind}", place(ends[0]), 8, place(ends[1]), 8)
    if baseline.difference is not None and is_number(baseline.difference):
        dot = {"class": f"dot {kind}", "cx": f"{place(baseline.difference):.1f}", "cy": "8", "r": "3"}
        ElementTree.SubElement(svg, "circle", dot)
    return ElementTree.tostring(svg, encoding="unicode")


def reach_of(baselines: Sequence[Baseline]) -> float:
    """The greatest distance from 0 among differences and the ends of their intervals; 1 where all are 0."""
    values = [value for line in baselines for value in (line.difference, *(line.interval or ()))]
    return max((abs(value) for value in values if value is not None and is_number(value)), default=0.0) or 1.0


def shares_figure(predicted: float, gold: float) -> str:
    """Two bars over each other: how often a letter was answered, and how often it is right."""
    svg = _svg(WIDTH, 18, f"answered {amount(predicted)}, right {amount(gold)}")
    for kind, y, value in (("predicted", 1, predicted), ("gold", 10, gold)):
        width = f"{min(max(value, 0.0), 1.0) * (WIDTH - 2):.1f}"
        ElementTree.SubElement(svg, "rect", {"class": kind, "x": "1", "y": str(y), "width": width, "height": "7"})
    return ElementTree.tostring(svg, encoding="unicode")


def _svg(width: int, height: int, words: str) -> ElementTree.Element:
    svg = ElementTree.Element(
        "svg", {"class": "mini", "viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": words}
    )
    ElementTree.SubElement(svg, "title").text = words
    return svg


def _line(svg: ElementTree.Element, kind: str, x1: float, y1: float, x2: float, y2: float) -> None:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    ElementTree.SubElement(svg, "line", {"class": kind, **ends})
