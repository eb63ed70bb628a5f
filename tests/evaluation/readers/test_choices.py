"""ScienceQA, AI2D and PMC-VQA: choices in the published forms."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.readers.written import cell, headline, is_perfect, png, put, put_parquet, read, refused
from vlm.evaluation.readers.hub_tables import Ai2d
from vlm.evaluation.readers.medical import PmcVqa
from vlm.evaluation.readers.scienceqa import ScienceQa


def problem(**changed: Any) -> dict[str, Any]:
    return {
        "question": "Which is a boat?", "choices": ["kite", "ship", "hill"], "answer": 1, "hint": "", "image": None,
        "task": "closed choice", "grade": "grade2", "subject": "natural science", "topic": "things",
        "category": "things", "skill": "Name a thing", "lecture": "Ships are boats.", "solution": "A ship.",
        "split": "test",
    } | changed  # fmt: skip


def scienceqa(path: Path, **changed: Any) -> str:
    """One question with a picture, one without, one of another split. changed: keys of the first."""
    problems = {
        "4": problem(**{"image": "image.png", "hint": "Look at the sea.", **changed}),
        "5": problem(choices=["yes", "no"], answer=0),
        "6": problem(split="train"),
    }
    put(path / "problems.json", problems)
    put(path / "pid_splits.json", {"train": ["6"], "val": [], "test": ["4", "5"]})
    put(path / "images/test/4/image.png", png())
    return str(path)


def test_scienceqa_reads_its_test_split_with_and_without_pictures(tmp_path: Path) -> None:
    first, second = read(ScienceQa(scienceqa(tmp_path), expected={"questions": 2, "with_pictures": 1}))
    assert (first.id, second.id) == ("4", "5")
    assert first.options == ("kite", "ship", "hill")
    assert (first.reference["gold"], first.reference["has_image"]) == ("B", True)
    assert (second.pictures, second.reference["has_image"]) == ((), False)
    assert first.pictures[0].read() == png()
    assert is_perfect(ScienceQa(str(tmp_path)), "scienceqa", lambda question: question.reference["gold"])


def test_scienceqa_puts_the_hint_in_front_and_never_shows_the_lesson(tmp_path: Path) -> None:
    first, second = read(ScienceQa(scienceqa(tmp_path)))
    assert first.fields == {"hint": "Look at the sea.", "context": "Context: Look at the sea.\n"}
    assert second.fields["context"] == ""
    assert "Ships are boats." not in str(first)


def test_scienceqa_img_is_the_part_with_pictures(tmp_path: Path) -> None:
    reader = ScienceQa(scienceqa(tmp_path), with_pictures=True, expected={"questions": 1})
    assert [question.id for question in read(reader)] == ["4"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"answer": 3}, "problem 4: the right answer is option 3, counted from 0, of 3"),
        ({"answer": -1}, "problem 4: the right answer is option -1"),
        ({"answer": "B"}, "problem 4: answer is 'B', which is str"),
        ({"choices": []}, "problem 4: it has 0 options; 2 to 26"),
        ({"choices": [f"thing {n}" for n in range(27)]}, "problem 4: it has 27 options; 2 to 26"),
        ({"choices": "kite"}, "problem 4: choices is 'kite', which is str"),
        ({"split": "val"}, "problem 4: its split is val, but pid_splits.json lists it in test"),
        ({"image": "other.png"}, "1 of 1 pictures are not there, for example images/test/4/other.png"),
    ],
)
def test_scienceqa_refuses_what_has_no_answer(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    refused(ScienceQa(scienceqa(tmp_path, **changed)), told)


def test_scienceqa_refuses_splits_that_do_not_fit(tmp_path: Path) -> None:
    scienceqa(tmp_path)
    refused(ScienceQa(str(tmp_path), expected={"questions": 4241}), "2 questions, but 4,241 are published")
    put(tmp_path / "pid_splits.json", {"test": ["4", "9"]})
    refused(ScienceQa(str(tmp_path)), "problems.json has no '9'")
    put(tmp_path / "pid_splits.json", {"test": ["4", "4"]})
    refused(ScienceQa(str(tmp_path)), "split test names a problem twice")
    put(tmp_path / "pid_splits.json", {"minitest": ["4"]})
    refused(ScienceQa(str(tmp_path)), "test is missing")


def test_equal_options_are_kept_as_published_and_told(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        first, _ = read(ScienceQa(scienceqa(tmp_path, choices=["kite", "ship", "ship"])))
    assert first.options == ("kite", "ship", "ship")
    assert "1 questions have equal options, for example 4" in caplog.text


def ai2d(path: Path, answer: str = "2", options: tuple[str, ...] = ("sun", "leaf", "root", "soil")) -> Ai2d:
    row = {"question": "What is c?", "options": list(options), "answer": answer, "image": cell()}
    put_parquet(path / "data/test-00000-of-00001.parquet", [row, {**row, "answer": "0"}])
    return Ai2d(str(path), expected={"questions": 2})


def test_ai2d_names_the_right_option_by_its_number_as_text(tmp_path: Path) -> None:
    first, second = read(ai2d(tmp_path))
    assert first.reference == {"options": ["sun", "leaf", "root", "soil"], "gold": "C"}
    assert second.reference["gold"] == "A"
    assert first.group == second.group == first.pictures[0].id
    assert is_perfect(ai2d(tmp_path), "ai2d", lambda question: question.reference["gold"])
    assert headline(ai2d(tmp_path), "ai2d", lambda question: "A") == 0.5
    refused(ai2d(tmp_path, "C"), "row 1: answer is 'C', not the number of an option")
    refused(ai2d(tmp_path, "4"), "row 1: the right answer is option 4, counted from 0, of 4")


HEADER = ["Figure_path", "Question", "Answer", "Choice A", "Choice B", "Choice C", "Choice D", "Answer_label"]
ROW = ["PMC1_F2.jpg", 'Where is the "lesion", if any?', "Left lobe", " A:Right lobe ", " B:Left lobe ", "Spine", " D:Skin ", "B"]  # fmt: skip


def pmc(path: Path, row: list[str] = ROW, header: list[str] = HEADER) -> PmcVqa:
    target = io.StringIO()
    csv.writer(target).writerows([header, row])
    put(path / "test_clean.csv", target.getvalue())
    put(path / "images/PMC1_F2.jpg", png())
    return PmcVqa(str(path), expected={"questions": 1})


def test_pmc_vqa_shows_options_without_the_letters_in_their_text(tmp_path: Path) -> None:
    (question,) = read(pmc(tmp_path))
    assert question.options == ("Right lobe", "Left lobe", "Spine", "Skin")
    assert question.reference == {"options": list(question.options), "gold": "B"}
    assert question.text == 'Where is the "lesion", if any?'
    assert is_perfect(pmc(tmp_path), "pmc_vqa", lambda question: "B")


def test_pmc_vqa_refuses_the_second_version_and_rows_that_broke(tmp_path: Path) -> None:
    second = [
        "",
        "Figure_path",
        "Caption",
        "Question",
        "Choice A",
        "Choice B",
        "Choice C",
        "Choice D",
        "Answer",
        "split",
    ]
    refused(pmc(tmp_path, ROW, second), "has no column Answer_label .* not the first version of PMC-VQA")
    refused(pmc(tmp_path, ROW[:-1]), "row 1 has 7 cells, not 8")
    refused(pmc(tmp_path, [*ROW[:-1], "Left lobe"]), "row 1: the right answer is 'Left lobe', not a capital letter")
    refused(pmc(tmp_path, ["PMC2_F1.jpg", *ROW[1:]]), "1 of 1 pictures are not there")
