"""Two models on the same questions: differences in pairs, and no comparison of what was not asked alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.evaluation.asked import question, settings, yes_no
from tests.evaluation.commands import run
from vlm.contracts.benchmark import Reply
from vlm.contracts.errors import InputError
from vlm.evaluation.compare import compared, folder_of
from vlm.evaluation.intervals import mcnemar
from vlm.evaluation.prompts import ask
from vlm.evaluation.records import answered, compose, write_json, write_questions
from vlm.evaluation.results import results
from vlm.evaluation.sheets import Sheet

COUNT = 60
LABELS = ["yes", "no"] * (COUNT // 2)


def evaluation(
    folder: Path, said: list[str], weights: str, each: int = 1, limit: int | None = None, **changes: str
) -> Path:
    """A scored POPE-like sheet. each: questions a picture."""
    how = settings(name="pope", **changes)
    asked = [question(number, gold, pictures=(number // each,)) for number, gold in enumerate(yes_no(LABELS))]
    given = {
        "benchmark": {"name": how.name, "scorer": how.scorer, "prompt": how.prompt}, "weights": weights, "limit": limit,
        "seed": 0, "ocr": "none", "token_budget": None, "data": {"a.json": "1"},
    }  # fmt: skip
    sheet = Sheet(folder, "pope", given, {"model": str(folder), "variants": ["vlmevalkit"], "split_by": []})
    with sheet.writer("seen", "0/1") as writer:
        writer.write([Reply(one.id, text) for one, text in zip(asked, said, strict=True)])
    write_questions(sheet, asked, [ask(one, how) for one in asked])
    write_json(sheet.path / "results.json", results(answered(sheet.path)))
    write_json(sheet.path / "pictures.json", [])
    compose(folder, weights)
    return folder


def wrong(places: set[int]) -> list[str]:
    """The right answers but for some."""
    return [{"yes": "no", "no": "yes"}[label] if number in places else label for number, label in enumerate(LABELS)]


def row(first: Path, other: Path) -> list[str]:
    """Cells of the one line under the heading."""
    (line,) = compared([first, other]).splitlines()[1:]
    return [cell for cell in line.split("  ") if cell.strip()]


def test_a_better_model_is_shown_with_its_paired_interval_and_mcnemars_p(tmp_path):
    first = evaluation(tmp_path / "a", wrong(set(range(20))), "a")
    other = evaluation(tmp_path / "b", wrong({0, 1, 40}), "b")
    cells = [cell.strip() for cell in row(first, other)]
    assert cells[1:5] == [str(COUNT), "66.7", "95.0", "28.3"]
    low, high = map(float, cells[5].split(".."))
    assert 0 < low < 28.3 < high
    assert float(cells[6]) == pytest.approx(mcnemar(1, 18), rel=1e-2)
    assert cells[7] == "other is better"
    assert row(other, first)[-1].strip() == "first is better"


def test_equal_models_show_no_difference_and_so_do_models_that_differ_by_chance(tmp_path):
    first = evaluation(tmp_path / "a", wrong({0, 1, 2}), "a")
    assert [cell.strip() for cell in row(first, first)][4:] == ["0.0", "0.0..0.0", "1", "no difference shown"]
    other = evaluation(tmp_path / "b", wrong({3, 4}), "b")
    assert row(first, other)[-1].strip() == "no difference shown"


def test_pairing_shows_what_two_separate_intervals_would_hide(tmp_path):
    """Ten questions better and none worse, at a level at which each model alone is uncertain by 12 points."""
    first = evaluation(tmp_path / "a", wrong(set(range(30))), "a")
    other = evaluation(tmp_path / "b", wrong(set(range(20))), "b")
    assert row(first, other)[-1].strip() == "other is better"


def test_questions_about_one_picture_are_one_draw_and_have_no_mcnemar(tmp_path):
    """All gains lie in one picture of six: resampling pictures says that this may be chance."""
    first = evaluation(tmp_path / "a", wrong(set(range(10))), "a", each=10)
    other = evaluation(tmp_path / "b", wrong(set()), "b", each=10)
    cells = [cell.strip() for cell in row(first, other)]
    assert cells[5].startswith("0.0..")
    assert cells[6:] == ["-", "no difference shown"]


def test_several_models_are_each_compared_with_the_first(tmp_path):
    folders = [evaluation(tmp_path / name, wrong(set(range(number))), name) for number, name in enumerate("abc")]
    lines = compared(folders).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [f"pope (vlmevalkit): {tmp_path / name}" for name in "bc"]


@pytest.mark.parametrize("change", [{"limit": 10}, {"prompt": "{question}?"}])
def test_what_was_asked_otherwise_is_not_compared(tmp_path, change):
    first = evaluation(tmp_path / "a", LABELS, "a")
    other = evaluation(tmp_path / "b", LABELS, "b", **change)
    with pytest.raises(
        InputError, match=r"no benchmark in common that was asked alike \(same files, prompt, limit, seed, ocr\)"
    ):
        compared([first, other])


def test_of_two_sheets_of_the_same_questions_the_newest_counts(tmp_path):
    """A model was trained on and evaluated again into the same folder."""
    first = evaluation(tmp_path / "a", LABELS, "a")
    other = evaluation(tmp_path / "b", wrong(set(range(30))), "old")
    evaluation(other, wrong({1}), "new")
    assert row(first, other)[3].strip() == "98.3"


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


def test_the_command_prints_the_pairs_below_the_models_results(tmp_path):
    first, other = evaluation(tmp_path / "a", LABELS, "a"), evaluation(tmp_path / "b", wrong({3}), "b")
    code, said, _ = run(f"compare=[{first},{other}]")
    assert code == 0
    assert said.rstrip().endswith(compared([first, other]))
