"""MMBench: rotations that are checked, or made; pictures in base64 that other rows point at."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.readers.written import headline, is_perfect, png, put, read, refused
from vlm.evaluation.readers.mmbench import ROLL, MmBench

COLUMNS = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "l2-category", "split"]
THINGS = ("kite", "boat", "hill", "reed")


def row(index: int = 7, options: tuple[str, ...] = THINGS, answer: str = "B", **changed: Any) -> dict[str, Any]:
    letters = dict(zip("ABCD", (*options, "", "", "")[:4], strict=True))
    return {
        "index": index, "question": "What sails?\nLook.", "hint": "", **letters, "answer": answer,
        "category": "object_recognition", "image": base64.b64encode(png(index % ROLL % 9)).decode(),
        "l2-category": "finegrained_perception", "split": "dev",
    } | changed  # fmt: skip


def table(path: Path, *rows: dict[str, Any], columns: list[str] = COLUMNS) -> MmBench:
    target = io.StringIO()
    writer = csv.DictWriter(target, columns, delimiter="\t", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    put(path / "mmbench.tsv", target.getvalue())
    return MmBench(str(path), "mmbench.tsv")


def rolls(index: int = 7) -> list[dict[str, Any]]:
    """A question with three options in its three rows; the later ones point at the first one's picture."""
    options = THINGS[:3]
    pointer = {"image": str(index)}
    return [
        row(index, options),
        row(index + ROLL, options[1:] + options[:1], "A", **pointer),
        row(index + 2 * ROLL, options[2:] + options[:2], "C", **pointer),
    ]


def test_rotations_in_the_file_are_one_group_and_share_a_picture(tmp_path: Path) -> None:
    reader = table(tmp_path, *rolls(), row(8, THINGS[:2], "A"), row(8 + ROLL, ("boat", "kite"), "B"))
    questions = read(MmBench(reader.folder, reader.table, {"questions": 2, "rolls": 5}))
    assert [question.id for question in questions] == ["7", "1000007", "2000007", "8", "1000008"]
    assert [question.group for question in questions] == ["7", "7", "7", "8", "8"]
    assert len({question.pictures[0].id for question in questions}) == 2
    assert questions[2].pictures[0].read() == png(7)
    assert questions[1].reference == {
        "options": {"A": "boat", "B": "hill", "C": "kite"}, "gold": "A", "index": 1000007,
        "category": "object_recognition", "l2-category": "finegrained_perception",
    }  # fmt: skip


def test_a_file_without_rotations_gets_them_moved_by_one_each(tmp_path: Path) -> None:
    questions = read(table(tmp_path, row(7), row(8, THINGS[:2], "A")))
    assert [question.id for question in questions] == ["7", "1000007", "2000007", "3000007", "8", "1000008"]
    assert questions[1].options == ("boat", "hill", "reed", "kite")
    assert [question.reference["gold"] for question in questions] == ["B", "A", "D", "C", "A", "B"]
    right = {question.options[ord(question.reference["gold"]) - ord("A")] for question in questions[:4]}
    assert right == {"boat"}


def test_the_truth_is_right_in_every_rotation_and_a_constant_letter_in_none(tmp_path: Path) -> None:
    for reader in (table(tmp_path / "made", row(7), row(8)), table(tmp_path / "given", *rolls())):
        assert is_perfect(reader, "mmbench", lambda question: question.reference["gold"])
        assert headline(reader, "mmbench", lambda question: question.reference["gold"]) == 1.0
        assert headline(reader, "mmbench", lambda question: "A") == 0.0


def test_hints_stand_in_front(tmp_path: Path) -> None:
    question = read(table(tmp_path, row(hint="Boats float.")))[0]
    assert question.fields == {"hint": "Boats float.", "context": "Boats float.\n"}
    assert question.text == "What sails?\nLook."


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (rolls()[:2], "question 7 has the rows 7, 1000007, not one for each of its options"),
        ([rolls()[0], rolls()[2]], "has the rows 7, 2000007"),
        ([*rolls(), row(8)], "question 8 has the rows 8, not one for each"),
        ([*rolls()[:2], row(2 * ROLL + 7, ("hill", "kite", "boat"), "A")], "row 3: it is no rotation of row 7"),
        ([*rolls()[:2], row(2 * ROLL + 7, ("hill", "kite", "raft"), "C")], "row 3: it is no rotation of row 7"),
        ([*rolls()[:2], row(2 * ROLL + 7, THINGS[:3], "B")], "two rows of question 7 have the same order of options"),
        ([row(), row()], "row 2: index 7 is there a second time"),
        ([row(), row(8, image="9")], "row 2: its picture is that of row 9, which has none of its own or is not there"),
        ([row(image="no picture")], "row 1: image is neither base64"),
        ([row(answer="E")], "row 1: the right answer is option 4, counted from 0, of 4"),
        ([row(answer="boat")], "row 1: the right answer is 'boat', not a capital letter"),
        ([row(options=("kite", "", "boat"))], "row 1: option B is empty, but a later one is not"),
        ([row(options=("kite",), answer="A")], "row 1: it has 1 options"),
        ([row() | {"index": "x"}], "row 1: index is 'x', not a number"),
        ([], "holds no questions"),
    ],
)  # fmt: skip
def test_tables_that_would_score_wrongly_are_refused(tmp_path: Path, rows: list[dict[str, Any]], told: str) -> None:
    refused(table(tmp_path, *rows), told)


def test_another_version_is_refused(tmp_path: Path) -> None:
    table(tmp_path, *rolls())
    expected = {"questions": 1164, "rolls": 4329}
    refused(MmBench(str(tmp_path), "mmbench.tsv", expected), "1 questions, but 1,164 are published")
    refused(table(tmp_path, row(), columns=COLUMNS[:-4]), "has no column category, l2-category, image")
    with (tmp_path / "mmbench.tsv").open("a") as stream:
        stream.write("9\tcut off")
    refused(MmBench(str(tmp_path), "mmbench.tsv"), "no column")


def test_a_row_that_was_cut_is_named(tmp_path: Path) -> None:
    reader = table(tmp_path, row())
    with (tmp_path / "mmbench.tsv").open("a") as stream:
        stream.write("9\tcut off")
    refused(reader, "row 2 has 2 cells, not 12")
