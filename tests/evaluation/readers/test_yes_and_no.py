"""POPE and MME in the published forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.readers.written import cell, headline, is_perfect, png, put, put_lines, put_parquet, read, refused
from vlm.evaluation.readers.mme import Mme
from vlm.evaluation.readers.pope import KINDS, Pope


def pope(path: Path, pictures: int = 2) -> Path:
    """Per file and picture one question with yes and one with no, numbered anew in each file."""
    for kind in KINDS:
        rows = [
            {
                "question_id": number + 1,
                "image": f"COCO_val2014_{number // 2:012d}.jpg",
                "text": f"Is there a {kind if number % 2 else 'cat'} in the image?",
                "label": "no" if number % 2 else "yes",
            }
            for number in range(2 * pictures)
        ]
        put_lines(path / f"coco_pope_{kind}.json", rows)
    for number in range(pictures):
        put(path / f"val2014/COCO_val2014_{number:012d}.jpg", png(number))
    return path


def test_pope_keeps_its_three_files_apart_and_its_pictures_together(tmp_path: Path) -> None:
    questions = read(Pope(str(pope(tmp_path)), expected=dict.fromkeys(KINDS, 4)))
    assert [question.id for question in questions[:2]] == ["random/1", "random/2"]
    assert questions[-1].reference == {"question_id": 4, "category": "adversarial", "label": "no"}
    assert len({question.group for question in questions}) == 2
    assert questions[0].group == questions[4].group == questions[0].pictures[0].id


def test_pope_gives_the_truth_all_and_always_yes_a_half(tmp_path: Path) -> None:
    reader = Pope(str(pope(tmp_path)))
    assert is_perfect(reader, "pope", lambda question: question.reference["label"])
    assert headline(reader, "pope", lambda question: "yes") == 0.5


def test_the_older_random_file_is_refused_until_it_is_asked_for(tmp_path: Path) -> None:
    pope(tmp_path, 3)
    rows = (tmp_path / "coco_pope_random.json").read_text().splitlines()
    put(tmp_path / "coco_pope_random.json", "\n".join(rows[:-1]))
    expected = dict.fromkeys(KINDS, 6)
    refused(Pope(str(tmp_path), expected=expected), r"5 random, but 6 are published.*reader.expected.random=5")
    assert len(read(Pope(str(tmp_path), expected={**expected, "random": 5}))) == 17


def mme(path: Path, *more: dict[str, Any], path_of: str | None = "0001.png") -> Mme:
    """Two categories whose pictures share a name."""
    rows = [
        {
            "question_id": f"{category}/0001.png",
            "image": cell(colour, path_of),
            "question": f"Is it {answer}? Please answer yes or no.",
            "answer": answer,
            "category": category,
        }
        for colour, category in enumerate(("OCR", "code_reasoning"))
        for answer in ("Yes", "No")
    ]
    put_parquet(path / "data/test-00000-of-00001.parquet", [*rows, *more], group=3)
    return Mme(str(path), expected={"questions": 4 + len(more), "OCR": 2})


def test_mme_groups_by_category_and_picture(tmp_path: Path) -> None:
    questions = read(mme(tmp_path))
    assert [question.id for question in questions] == [
        "OCR/0001.png/0", "OCR/0001.png/1", "code_reasoning/0001.png/0", "code_reasoning/0001.png/1",
    ]  # fmt: skip
    assert questions[0].group == questions[1].group != questions[2].group
    assert questions[0].pictures[0].id == questions[1].pictures[0].id != questions[2].pictures[0].id
    assert questions[3].pictures[0].read() == png(1)
    assert questions[1].reference == {
        "category": "OCR", "image": "OCR/0001.png", "question_id": "OCR/0001.png", "answer": "No",
    }  # fmt: skip


def test_mme_asks_without_its_last_sentence_and_keeps_it_in_the_text(tmp_path: Path) -> None:
    question = read(mme(tmp_path))[0]
    assert question.text == "Is it Yes? Please answer yes or no."
    assert question.fields["asked"] == "Is it Yes?"


def test_mme_gives_the_truth_200_a_category_and_a_constant_50(tmp_path: Path) -> None:
    assert headline(mme(tmp_path), "mme", lambda question: question.reference["answer"]) == 400
    assert headline(mme(tmp_path), "mme", lambda question: "no") == 100


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (["Yes"], "picture OCR/2.png of OCR has the answers Yes; each picture must have one question with Yes and one"),
        (["Yes", "Yes"], "has the answers Yes, Yes"),
        (["Yes", "No", "No"], "has the answers Yes, No, No"),
        (["yes", "No"], "row 5: answer is 'yes'; one of No, Yes"),
    ],
)
def test_mme_refuses_pictures_without_their_pair(tmp_path: Path, answers: list[str], told: str) -> None:
    row = {"question_id": "OCR/2.png", "image": cell(3), "question": "?", "category": "OCR"}
    reader = mme(tmp_path, *({**row, "answer": answer} for answer in answers))
    refused(Mme(reader.folder), told)


def test_mme_refuses_another_number_of_questions(tmp_path: Path) -> None:
    refused(Mme(mme(tmp_path).folder, expected={"questions": 2374}), "4 questions, but 2,374 are published")
