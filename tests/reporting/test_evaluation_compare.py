"""The table of several models: a column each, and under each score how far it is from the first model's."""

from __future__ import annotations

from dataclasses import replace

from vlm.evaluation.compare import BETTER, LOWER, UNCLEAR, Beside, Comparison, Line, Pair, Score
from vlm.reporting.evaluation_compare import comparison_table

ASKED = {"benchmark": {"name": "pope", "prompt": "{question}", "decoding": "greedy"}, "limit": None, "ocr": "none"}
LOW = Score(0.5, (0.49, 0.51), 0.0, is_above=False)
HIGH = Score(0.612, (0.598, 0.626), 0.0, is_above=True)
GAIN = Pair(0.112, (0.09, 0.134), 7.63e-5, BETTER)
LINE = Line("pope", "all", "vlmevalkit", 9000, "accuracy", 1.0, ASKED, (LOW, HIGH), (None, GAIN))


def table(*lines: Line, models: tuple[str, ...] = ("small", "large"), width: int = 120) -> list[str]:
    return comparison_table(Comparison(models, lines), width).splitlines()


def test_a_column_a_model_with_the_paired_difference_below_each_score_but_the_first():
    found = table(LINE)
    assert found[0].split() == ["benchmark", "small", "large"]
    assert found[2].split("  ")[1] == "pope (vlmevalkit, n=9000)"
    assert "50.0 % [49.0 to 51.0] =" in found[2]
    assert found[2].endswith("61.2 % [59.8 to 62.6]")
    below = ["+11.2 [+9.0 to +13.4]", "McNemar p = 7.6e-05", "better than the first"]
    assert [line.strip() for line in found[3:6]] == below
    assert found[6] == "= not above its best baseline"
    assert found[7].startswith("Intervals are 95 %. Below a score: the difference to the first model in points")


def test_no_p_is_printed_where_mcnemars_test_does_not_hold():
    found = table(replace(LINE, pairs=(None, Pair(-0.002, (-0.01, 0.006), None, UNCLEAR))))
    assert [line.strip() for line in found[3:5]] == ["\u22120.2 [\u22121.0 to +0.6]", "no difference shown"]


def test_other_measures_stand_indented_below_with_differences_of_their_own():
    made_up = Pair(-0.3, (-0.34, -0.26), None, LOWER)
    found = table(replace(LINE, beside=(Beside("invented", 1.0, (HIGH, LOW), (None, made_up)),)))
    assert found[6].startswith("    invented")
    assert found[6].endswith("50.0 % [49.0 to 51.0]")  # no mark: it has no baseline
    assert [line.strip() for line in found[7:9]] == ["\u221230.0 [\u221234.0 to \u221226.0]", "lower than the first"]


def test_what_a_model_was_not_asked_is_told_and_has_no_difference():
    found = table(replace(LINE, scores=(LOW, None), pairs=(None, None)))
    assert found[2].endswith("not measured")
    assert found[3].startswith("= not above")


def test_scores_with_many_unreadable_answers_are_marked_and_points_stay_points():
    points = Score(704.3, (689.0, 719.9), 0.2, is_above=False)
    found = table(replace(LINE, benchmark="mme", top=2800.0, scores=(points, points), pairs=(None, None)))
    assert "704.3 [689.0 to 719.9] = ?" in found[2]
    assert "? more than 5 % of the answers could not be read" in found


def test_lines_of_one_title_say_in_what_they_differ():
    asked = {**ASKED["benchmark"], "decoding": "likelihood", "prompt": "{question}\nAnswer with yes or no, one word."}
    found = " ".join("\n".join(table(LINE, replace(LINE, asked={**ASKED, "benchmark": asked}))).split())
    assert "decoding=greedy" in found
    assert "decoding=likelihood" in found
    assert "prompt={question}" in found
    assert "Answer with yes" not in found
    assert "limit=" not in found


def test_of_long_paths_the_end_is_shown_because_it_tells_runs_apart():
    runs = tuple(f"/scratch/project/somebody/runs/captioner_joint/{name * 12}" for name in "abc")
    lines = table(replace(LINE, scores=(LOW, HIGH, HIGH), pairs=(None, GAIN, GAIN)), models=runs)
    for name in "abc":
        assert name * 12 in lines[0]
    assert lines[0].count("…") == 3
    assert max(map(len, lines)) <= 120
