"""A quantity against the token budget as inline SVG: a point a budget, its interval, and what is had for nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from xml.etree import ElementTree

from vlm.reporting.curves import BOTTOM, HEIGHT, RIGHT, TOP, WIDTH, Axis, label

Points = Mapping[int, tuple[float, tuple[float, float] | None]]  # budget -> value and the ends of its interval
LEFT = 62  # room for tick labels with a unit, also where a narrow page makes them larger
ROOM = 24  # units that the number of a budget takes; of two that are closer the first is written


def draw_budgets(
    points: Points, title: str, identity: str, told: Callable[[float], str], chance: float | None = None
) -> str:
    """An <svg> with title and description.

    identity: unique in the page.   told: a value as words, of the axis and the description.
    chance: drawn as a line across.
    """
    ends = [end for value, interval in points.values() for end in (value, *(interval or ()))]
    low, high = min(0.0, *ends), max(*ends, ends[0] if chance is None else chance)
    budgets = sorted(points)
    span = (budgets[0] / 1.5, budgets[-1] * 1.5)  # a single budget still has room around it
    across = Axis(*span, LEFT, WIDTH - RIGHT, logarithmic=True)
    up = Axis(low, high, HEIGHT - BOTTOM, TOP)
    svg = ElementTree.Element(
        "svg",
        {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-labelledby": f"{identity}-title {identity}-text"},
    )
    ElementTree.SubElement(svg, "title", {"id": f"{identity}-title"}).text = title
    described = "; ".join(f"{told(value)} with {budget} tokens" for budget, (value, _) in sorted(points.items()))
    ElementTree.SubElement(svg, "desc", {"id": f"{identity}-text"}).text = described
    for value in up.ticks(5):
        y = f"{up(value):.1f}"
        ElementTree.SubElement(
            svg, "line", {"class": "grid", "x1": str(LEFT), "x2": str(WIDTH - RIGHT), "y1": y, "y2": y}
        )
        label(svg, LEFT - 6, up(value) + 3.5, "end", told(value))
    end = -math.inf
    for budget in budgets:
        if across(budget) - end > ROOM:
            label(svg, across(budget), HEIGHT - 7, "middle", str(budget))
            end = across(budget)
    if chance is not None:
        y = f"{up(chance):.1f}"
        ElementTree.SubElement(
            svg, "line", {"class": "mark", "x1": str(LEFT), "x2": str(WIDTH - RIGHT), "y1": y, "y2": y}
        )
        label(svg, WIDTH - RIGHT, up(chance) - 4, "end", f"chance {told(chance)}")
    if len(budgets) > 1:
        line = " ".join(f"{across(budget):.1f},{up(points[budget][0]):.1f}" for budget in budgets)
        ElementTree.SubElement(svg, "polyline", {"class": "line-0 held-out", "points": line})
    for budget in budgets:
        value, interval = points[budget]
        x = f"{across(budget):.1f}"
        if interval is not None:
            bar = {"class": "spread", "x1": x, "x2": x, "y1": f"{up(interval[0]):.1f}", "y2": f"{up(interval[1]):.1f}"}
            ElementTree.SubElement(svg, "line", bar)
        ElementTree.SubElement(svg, "circle", {"class": "dot-0", "cx": x, "cy": f"{up(value):.1f}", "r": "3.4"})
    return ElementTree.tostring(svg, encoding="unicode")
