"""A metric over steps as inline SVG: one line a group, a band over its seeds.

Colours and fonts are left to the page's style sheet (classes `line-0` …), so that a figure follows dark mode and
print; a plotting library would fix both in the file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

import numpy as np

from vlm.reporting.groups import Group

WIDTH, HEIGHT = 420, 220  # units of the view box; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 24  # room for tick labels
MOST_POINTS = 150  # of a line; longer logs are averaged in stretches
LOG_SPAN = 20  # values that span more than this factor are drawn on a logarithmic axis
MOST_DOTS = 40  # validations of a line that are marked; more would hide it
STYLES = 6  # line styles of the style sheet


Kind = Literal["", "training", "held-out"]


@dataclass(frozen=True)
class Curve:
    """One line. steps, mean, low, high [n]: mean, least and greatest over seeds at each step.

    kind: where a figure has both, a training line is thin and dashed, a held-out one whole with a dot a validation.
    """

    label: str
    style: int
    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    kind: Kind = ""


def group_curve(group: Group, name: str, style: int) -> Curve | None:
    """The metric over the steps that all of the group's seeds have logged; None with fewer than two points."""
    logged = [run.series(name) for run in group.counted]
    logged = [(steps, values) for steps, values in logged if len(steps)]
    if not logged:
        return None
    steps = logged[0][0]
    for other, _ in logged[1:]:
        steps = np.intersect1d(steps, other)
    if len(steps) < 2:
        return None
    rows = np.stack([values[np.isin(own, steps)] for own, values in logged])
    stretches = np.array_split(np.arange(len(steps)), min(len(steps), MOST_POINTS))
    steps = np.array([steps[stretch].mean() for stretch in stretches])
    rows = np.stack([rows[:, stretch].mean(axis=1) for stretch in stretches], axis=1)
    return Curve(group.label, style % STYLES, steps, rows.mean(axis=0), rows.min(axis=0), rows.max(axis=0))


def draw(
    curves: Sequence[Curve], title: str, identity: str, zero: bool = False, marks: Sequence[tuple[float, str]] = ()
) -> str:
    """An <svg> with title and description for those who cannot see it.

    identity: unique in the page.   zero: the axis holds 0, drawn as a line (for gains).
    marks: values that are drawn as dashed lines with their words, such as limits; the axis holds them, too.
    """
    lowest = min([float(curve.low.min()) for curve in curves] + [value for value, _ in marks])
    highest = max([float(curve.high.max()) for curve in curves] + [value for value, _ in marks])
    logarithmic = not zero and lowest > 0 and highest / lowest > LOG_SPAN
    if zero:
        lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    across = Axis(0.0, max(float(curve.steps[-1]) for curve in curves), LEFT, WIDTH - RIGHT)
    up = Axis(lowest, highest, HEIGHT - BOTTOM, TOP, logarithmic)

    svg = ElementTree.Element(
        "svg",
        {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-labelledby": f"{identity}-title {identity}-text"},
    )
    ElementTree.SubElement(svg, "title", {"id": f"{identity}-title"}).text = title
    ElementTree.SubElement(svg, "desc", {"id": f"{identity}-text"}).text = describe(curves)
    for value in up.ticks(5):
        y = f"{up(value):.1f}"
        kind = "zero" if zero and value == 0 else "grid"
        ElementTree.SubElement(
            svg, "line", {"class": kind, "x1": str(LEFT), "x2": str(WIDTH - RIGHT), "y1": y, "y2": y}
        )
        label(svg, LEFT - 6, up(value) + 3.5, "end", f"{value:g}")
    for value in across.ticks(5):
        label(svg, across(value), HEIGHT - 7, "middle", f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    for value, words in marks:
        y = f"{up(value):.1f}"
        ElementTree.SubElement(
            svg, "line", {"class": "mark", "x1": str(LEFT), "x2": str(WIDTH - RIGHT), "y1": y, "y2": y}
        )
        label(svg, WIDTH - RIGHT, up(value) + (11 if up(value) < TOP + 12 else -4), "end", words)
    for curve in curves:
        band = [*zip(curve.steps, curve.high, strict=True), *zip(curve.steps[::-1], curve.low[::-1], strict=True)]
        ElementTree.SubElement(svg, "polygon", {"class": f"band-{curve.style}", "points": _points(band, across, up)})
    for curve in curves:
        middle = list(zip(curve.steps, curve.mean, strict=True))
        line = ElementTree.SubElement(
            svg,
            "polyline",
            {"class": f"line-{curve.style} {curve.kind}".strip(), "points": _points(middle, across, up)},
        )
        ElementTree.SubElement(line, "title").text = describe([curve])
        for x, y in middle if curve.kind == "held-out" and len(middle) <= MOST_DOTS else ():
            dot = {"class": f"dot-{curve.style}", "cx": f"{across(x):.1f}", "cy": f"{up(y):.1f}", "r": "2.6"}
            ElementTree.SubElement(svg, "circle", dot)
    return ElementTree.tostring(svg, encoding="unicode")


def positive(curve: Curve) -> Curve | None:
    """The curve where all its values are above 0, which is where a logarithmic axis has a place; None below two points."""
    kept = curve.low > 0
    if kept.sum() < 2:
        return None
    rows = (values[kept] for values in (curve.steps, curve.mean, curve.low, curve.high))
    return Curve(curve.label, curve.style, *rows, kind=curve.kind)


def describe(curves: Sequence[Curve]) -> str:
    """The curves in words: where each begins and ends."""
    return "; ".join(
        f"{curve.label}: {curve.mean[0]:.3g} at step {curve.steps[0]:,.0f}, "
        f"{curve.mean[-1]:.3g} at step {curve.steps[-1]:,.0f}"
        for curve in curves
    )


class Axis:
    """Values to places between two ends of the picture."""

    def __init__(self, low: float, high: float, start: float, end: float, logarithmic: bool = False) -> None:
        self.logarithmic = logarithmic
        if not logarithmic:
            margin = 0.04 * (high - low) or abs(high) or 1.0  # a constant still needs a range to lie in
            # an end at 0 stays there: a loss or a count has nothing below it
            low, high = (low if low == 0 < high else low - margin), (high if low < 0 == high else high + margin)
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        low, high = self._scale(self.low), self._scale(self.high)
        return self.start + (self._scale(value) - low) / (high - low) * (self.end - self.start)

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    def ticks(self, most: int) -> list[float]:
        """At most about `most` round values within the axis."""
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            every = math.ceil(len(decades) / most)
            within = (1, 2, 5) if math.log10(self.high / self.low) < 2 else (1,)
            found = [factor * 10.0**decade for decade in decades[::every] for factor in within]
        else:
            rough = (self.high - self.low) / most
            size = 10 ** math.floor(math.log10(rough))
            step = size * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough * 0.999)
            found = [
                round(step * count, 12) for count in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
            ]
        return [value for value in found if self.low <= value <= self.high]


def _points(pairs: Sequence[tuple[float, float]], across: Axis, up: Axis) -> str:
    return " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in pairs)


def label(svg: ElementTree.Element, x: float, y: float, anchor: str, text: str) -> None:
    """Words in a drawing. anchor: which part of them stands at x, "start", "middle" or "end"."""
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    ElementTree.SubElement(svg, "text", place).text = text
