from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from vlm.reporting.curves import MOST_POINTS, Curve, draw, group_curve
from vlm.reporting.groups import Group

SVG = "{http://www.w3.org/2000/svg}"


def curve(values: list[float], label: str = "a") -> Curve:
    mean = np.array(values)
    return Curve(label, 0, np.arange(1.0, len(values) + 1), mean, mean, mean)


def numbers(svg: str) -> list[str]:
    return [node.text for node in ElementTree.fromstring(svg).iter("text")]


def test_a_line_is_the_mean_over_seeds_and_its_band_their_range(folders):
    runs = [
        folders.read(identity=str(seed), rows=[{"step": 10, "x": 1.0 + seed}, {"step": 20, "x": 2.0 + seed}])
        for seed in range(3)
    ]
    found = group_curve(Group("s", {}, tuple(runs)), "x", 0)
    assert list(found.steps) == [10, 20]
    assert (list(found.mean), list(found.low), list(found.high)) == ([2, 3], [1, 2], [3, 4])


def test_a_line_ends_where_a_seed_has_no_more_rows(folders):
    rows = [{"step": step, "x": 1.0} for step in (10, 20, 30)]
    runs = (folders.read(identity="a", rows=rows), folders.read(identity="b", rows=rows[:2]))
    assert list(group_curve(Group("s", {}, runs), "x", 0).steps) == [10, 20]


def test_one_point_is_no_curve(folders):
    run = folders.read(rows=[{"step": 10, "x": 1.0}])
    assert group_curve(Group("s", {}, (run,)), "x", 0) is None
    assert group_curve(Group("s", {}, (run,)), "y", 0) is None


def test_a_long_log_becomes_a_line_of_bounded_length(folders):
    run = folders.read(rows=[{"step": step, "x": float(step)} for step in range(5000)])
    found = group_curve(Group("s", {}, (run,)), "x", 0)
    assert len(found.steps) == MOST_POINTS
    assert list(found.steps) == list(found.mean)


def test_a_figure_says_in_words_what_it_shows():
    svg = ElementTree.fromstring(draw([curve([3.0, 1.5], "<dot>")], "training loss", "one"))
    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby") == "one-title one-text"
    assert svg.findtext("title") == "training loss"
    assert svg.findtext("desc") == "<dot>: 3 at step 1, 1.5 at step 2"


def test_a_wide_span_is_drawn_on_a_logarithmic_axis():
    assert {"1", "0.1"} <= set(numbers(draw([curve([3.0, 0.01])], "t", "i")))


def test_a_gain_is_drawn_against_zero():
    svg = ElementTree.fromstring(draw([curve([-0.1, 0.4])], "t", "i", zero=True))
    assert svg.find("line[@class='zero']") is not None


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0, 5.0], [-1e-9, 1e-9], [1e8, 2e8]])
def test_unusual_ranges_still_have_places_and_numbers(values):
    for zero in (False, True):
        svg = draw([curve(values)], "t", "i", zero=zero)
        assert "nan" not in svg
        assert numbers(svg)
