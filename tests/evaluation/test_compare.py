"""Two models on the same questions: differences in pairs, and no comparison of what was not asked alike."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.asked import question, settings, yes_no
from tests.evaluation.commands import run
from vlm.contracts.benchmark import Reply
from vlm.contracts.errors import InputError
from vlm.evaluation.compare import BETTER, HIGHER, LOWER, UNCLEAR, WORSE, Pair, compared, folder_of
from vlm.evaluation.intervals import mcnemar
from vlm.evaluation.prompts import ask
from vlm.evaluation.records import answered, compose, write_json, write_predictions, write_questions
from vlm.evaluation.results import results
from vlm.evaluation.sheets import Sheet
from vlm.reporting.evaluation_compare import comparison_table

COUNT = 60
LABELS = ["yes", "no"] * (COUNT // 2)


def evaluation(
    folder: Path,
    said: list[str],
    weights: str,
    each: int = 1,
    limit: int | None = None,
    seed: int = 0,
    split_by: Sequence[str] = (),
    **changes: Any,
) -> Path:
    """A scored POPE-like sheet. each: questions a picture."""
    how = settings(name="pope", **changes)
    golds = [{**gold, "category": ("random", "popular")[n % 2]} for n, gold in enumerate(yes_no(LABELS))]
    asked = [question(number, gold, pictures=(number // each,)) for number, gold in enumerate(golds)]
    given = {
        "benchmark": {"name": how.name, "scorer": how.scorer, "prompt": how.prompt}, "weights": weights, "limit": limit,
        "seed": seed, "ocr": "none", "token_budget": None, "data": {"a.json": "1"},
    }  # fmt: skip
    notes = {"model": str(folder), "variants": how.variants, "split_by": list(split_by)}
    sheet = Sheet(folder, "pope", given, notes)
    with sheet.writer("seen", "0/1") as writer:
        writer.write([Reply(one.id, text) for one, text in zip(asked, said, strict=True)])
    write_questions(sheet, asked, [ask(one, how) for one in asked])
    write_predictions(sheet.path, answered(sheet.path))
    write_json(sheet.path / "results.json", results(answered(sheet.path)))
    write_json(sheet.path / "pictures.json", [])
    compose(folder, weights)
    return folder


def wrong(places: set[int]) -> list[str]:
    """The right answers but for some."""
    return [{"yes": "no", "no": "yes"}[label] if number in places else label for number, label in enumerate(LABELS)]


def pair(first: Path, other: Path) -> Pair:
    """The one line's difference."""
    (line,) = compared([first, other]).lines
    found = line.pairs[1]
    assert found is not None
    return found


def test_a_better_model_is_shown_with_its_paired_interval_and_mcnemars_p(tmp_path):
    first = evaluation(tmp_path / "a", wrong(set(range(20))), "a")
    other = evaluation(tmp_path / "b", wrong({0, 1, 40}), "b")
    (line,) = compared([first, other]).lines
    assert (line.benchmark, line.split, line.variant, line.n, line.metric) == (
        "pope", "all", "vlmevalkit", COUNT, "accuracy",
    )  # fmt: skip
    assert [score.value for score in line.scores] == pytest.approx([40 / 60, 57 / 60])
    assert line.pairs[0] is None
    found = pair(first, other)
    low, high = found.interval
    assert found.difference == pytest.approx(17 / 60)
    assert 0 < low < found.difference < high
    assert found.p == pytest.approx(mcnemar(1, 18))
    assert found.reading == BETTER
    assert pair(other, first).reading == WORSE


def test_equal_models_show_no_difference_and_so_do_models_that_differ_by_chance(tmp_path):
    first = evaluation(tmp_path / "a", wrong({0, 1, 2}), "a")
    assert pair(first, first) == Pair(0.0, (0.0, 0.0), 1.0, UNCLEAR)
    assert pair(first, evaluation(tmp_path / "b", wrong({3, 4}), "b")).reading == UNCLEAR


def test_pairing_shows_what_two_separate_intervals_would_hide(tmp_path):
    """Ten questions better and none worse, at a level at which each model alone is uncertain by 12 points."""
    first = evaluation(tmp_path / "a", wrong(set(range(30))), "a")
    other = evaluation(tmp_path / "b", wrong(set(range(20))), "b")
    assert pair(first, other).reading == BETTER


def test_five_questions_better_and_none_worse_may_be_chance(tmp_path):
    """As for baselines: an exact sign test of five says p = 0.06, whatever the resampled interval says."""
    first = evaluation(tmp_path / "a", wrong(set(range(5))), "a")
    found = pair(first, evaluation(tmp_path / "b", wrong(set()), "b"))
    assert found.interval[0] > 0
    assert found.reading == UNCLEAR
    more = evaluation(tmp_path / "c", wrong(set(range(6))), "c")
    assert pair(more, tmp_path / "b").reading == BETTER


def test_questions_about_one_picture_are_one_draw_and_have_no_mcnemar(tmp_path):
    """All gains lie in one picture of six: resampling pictures says that this may be chance."""
    first = evaluation(tmp_path / "a", wrong(set(range(10))), "a", each=10)
    found = pair(first, evaluation(tmp_path / "b", wrong(set()), "b", each=10))
    assert found.interval[0] == 0.0
    assert (found.p, found.reading) == (None, UNCLEAR)


def test_every_other_measure_is_compared_in_pairs_too_and_called_higher_or_lower(tmp_path):
    """A model that says yes more often, beside the first: as good, but of another recall and share of yes."""
    first = evaluation(tmp_path / "a", wrong(set(range(0, 24, 2))), "a")  # twelve times no for yes
    other = evaluation(tmp_path / "b", wrong(set(range(1, 25, 2))), "b")
    (line,) = compared([first, other]).lines
    assert (line.pairs[1].difference, line.pairs[1].reading) == (0.0, UNCLEAR)
    found = {beside.metric: beside for beside in line.beside}
    assert {"precision", "recall", "yes_ratio"} < set(found)
    recall = found["recall"]
    assert [score.value for score in recall.scores] == pytest.approx([18 / 30, 1.0])
    assert recall.pairs[0] is None
    assert recall.pairs[1].difference == pytest.approx(12 / 30)
    assert (recall.pairs[1].reading, recall.pairs[1].p) == (HIGHER, None)
    assert found["yes_ratio"].pairs[1].difference == pytest.approx(24 / 60)
    assert found["precision"].pairs[1].reading == LOWER
    low, high = found["precision"].pairs[1].interval
    assert low < found["precision"].pairs[1].difference < high < 0


def test_five_groups_of_a_measure_that_differ_may_be_chance_too(tmp_path):
    first = evaluation(tmp_path / "a", wrong({0, 2, 4, 6, 8}), "a")
    (line,) = compared([first, evaluation(tmp_path / "b", wrong(set()), "b")]).lines
    (recall,) = (beside for beside in line.beside if beside.metric == "recall")
    assert recall.pairs[1].interval[0] > 0
    assert recall.pairs[1].reading == UNCLEAR


def test_several_models_are_each_compared_with_the_first(tmp_path):
    folders = [evaluation(tmp_path / name, wrong(set(range(number))), name) for number, name in enumerate("abc")]
    found = compared(folders)
    assert found.models == tuple(map(str, folders))
    (line,) = found.lines
    assert [pair and round(COUNT * pair.difference) for pair in line.pairs] == [None, -1, -2]


def test_splits_are_compared_too(tmp_path):
    folders = [evaluation(tmp_path / name, LABELS, name, split_by=["category"]) for name in "ab"]
    lines = compared(folders).lines
    assert [(line.split, line.n) for line in lines] == [("all", 60), ("category=popular", 30), ("category=random", 30)]
    assert all(line.pairs[1] for line in lines)
    assert [bool(line.beside) for line in lines] == [True, False, False]


@pytest.mark.parametrize("change", [{"limit": 10}, {"prompt": "{question}?"}, {"variants": ["official"]}])
def test_what_was_asked_or_is_scored_otherwise_is_not_compared(tmp_path, change):
    first = evaluation(tmp_path / "a", LABELS, "a")
    other = evaluation(tmp_path / "b", LABELS, "b", **change)
    with pytest.raises(
        InputError, match=r"no benchmark in common that was asked alike \(same files, prompt, limit, seed, ocr\)"
    ):
        compared([first, other])


def test_a_seed_matters_only_where_it_draws_the_questions(tmp_path):
    first = evaluation(tmp_path / "a", LABELS, "a")
    assert pair(first, evaluation(tmp_path / "b", LABELS, "b", seed=1)).difference == 0
    first = evaluation(tmp_path / "c", LABELS, "c", limit=60)
    with pytest.raises(InputError, match="no benchmark in common"):
        compared([first, evaluation(tmp_path / "d", LABELS, "d", limit=60, seed=1)])


def test_what_only_some_models_were_asked_stands_on_a_line_of_its_own(tmp_path):
    first = evaluation(evaluation(tmp_path / "a", LABELS, "a"), LABELS, "a", prompt="{question}?")
    other = evaluation(tmp_path / "b", LABELS, "b")
    lines = compared([first, other]).lines
    assert sorted(line.pairs[1] is not None for line in lines) == [False, True]
    assert sorted(line.scores[1] is not None for line in lines) == [False, True]


def test_of_two_sheets_of_the_same_questions_the_newest_counts(tmp_path):
    """A model was trained on and evaluated again into the same folder."""
    first = evaluation(tmp_path / "a", LABELS, "a")
    other = evaluation(tmp_path / "b", wrong(set(range(30))), "old")
    evaluation(other, wrong({1}), "new")
    (line,) = compared([first, other]).lines
    assert line.scores[1].value == pytest.approx(59 / 60)


def test_a_run_folder_stands_for_its_evaluation(tmp_path):
    folder = evaluation(tmp_path / "run" / "evaluation", LABELS, "a")
    assert folder_of(tmp_path / "run") == folder_of(folder) == folder


def test_a_model_without_results_and_a_single_model_are_refused(tmp_path):
    first = evaluation(tmp_path / "a", LABELS, "a")
    code, said, told = run(f"compare=[{first},{tmp_path / 'none'}]")
    assert (code, said) == (2, "")
    assert f"compare: {tmp_path / 'none'} has no evaluation" in told
    assert "run experiments.evaluate on it first" in told
    assert run(f"compare=[{first}]")[0] == 2
    shutil.rmtree(first / "sheets")
    with pytest.raises(InputError, match="has no evaluation"):
        folder_of(first)


def test_the_command_prints_one_table_and_names_the_page_of_answers(tmp_path):
    first, other = evaluation(tmp_path / "a", LABELS, "a"), evaluation(tmp_path / "b", wrong({3}), "b")
    code, said, _ = run(f"compare=[{first},{other}]")
    assert code == 0
    page = other / "compare.html"
    assert said == f"{comparison_table(compared([first, other]))}\n{page}\n"
    assert page.is_file()
