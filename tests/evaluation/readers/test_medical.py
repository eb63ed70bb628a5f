"""VQA-RAD, PathVQA and SLAKE in the published forms; their answers stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.readers.written import cell, is_perfect, png, put, put_parquet, read, refused
from vlm.evaluation.readers.medical import MedicalTable, Slake


def table(path: Path, *answers: str, **keys: Any) -> MedicalTable:
    """Two questions about each picture."""
    rows = [
        {"image": cell(number // 2), "question": f"is the heart enlarged {number}?", "answer": answer}
        for number, answer in enumerate(answers)
    ]
    put_parquet(path / "data/test-00000-of-00001.parquet", rows)
    return MedicalTable(str(path), **keys)


def test_questions_about_equal_pictures_are_one_group(tmp_path: Path) -> None:
    first, second, third = read(table(tmp_path, "yes", "Left lobe ", "No"))
    assert first.group == second.group == first.pictures[0].id != third.group
    assert third.pictures[0].read() == png(1)
    assert [question.id for question in (first, second, third)] == ["0", "1", "2"]


def test_closed_questions_are_those_with_yes_or_no_and_no_answer_is_repaired(tmp_path: Path) -> None:
    reader = table(tmp_path, "yes", "Left lobe ", " No", expected={"questions": 3, "OPEN": 1, "CLOSED": 2})
    assert [question.reference for question in read(reader)] == [
        {"answer": "yes", "answer_type": "CLOSED"},
        {"answer": "Left lobe ", "answer_type": "OPEN"},
        {"answer": " No", "answer_type": "CLOSED"},
    ]
    for name in ("vqa_rad", "pathvqa"):
        assert is_perfect(reader, name, lambda question: question.reference["answer"])


def test_another_copy_of_the_table_is_refused(tmp_path: Path) -> None:
    refused(table(tmp_path, "yes", expected={"questions": 6719}), "1 questions, but 6,719 are published")
    refused(table(tmp_path, "yes", " "), "row 2: answer is empty")


def slake_row(number: int, **changed: Any) -> dict[str, Any]:
    return {
        "img_id": 3, "img_name": "xmlab3/source.jpg", "question": "Which organ is on the left?", "answer": "Liver, Spleen",
        "q_lang": "en", "location": "Abdomen", "modality": "CT", "answer_type": "OPEN", "base_type": "vqa",
        "content_type": "Position", "triple": ["vhead", "_", "_"], "qid": number,
    } | changed  # fmt: skip


def slake(path: Path, **changed: Any) -> Slake:
    closed = slake_row(13, question="Is it CT?", answer="Yes", answer_type="CLOSED", **changed)
    put(path / "test.json", [slake_row(12), closed, slake_row(14, q_lang="zh", answer="肝脏")])
    put(path / "imgs/xmlab3/source.jpg", png())
    return Slake(str(path), expected={"questions": 2, "OPEN": 1, "CLOSED": 1})


def test_slake_asks_its_english_part_unless_told_otherwise(tmp_path: Path) -> None:
    first, second = read(slake(tmp_path))
    assert (first.id, first.group) == ("12", "imgs/xmlab3/source.jpg")
    assert first.reference["answer"] == "Liver, Spleen"
    assert second.reference["answer_type"] == "CLOSED"
    assert is_perfect(slake(tmp_path), "slake", lambda question: question.reference["answer"])
    assert [question.id for question in read(Slake(str(tmp_path), language="zh"))] == ["14"]
    assert len(read(Slake(str(tmp_path), language=None))) == 3


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"qid": 12}, "row 2: question 12 is there a second time"),
        ({"q_lang": "fr"}, "row 2: q_lang is 'fr'; one of en, zh"),
        ({"q_lang": "zh"}, "1 questions, but 2 are published"),
        ({"img_name": "xmlab4/source.jpg"}, "1 of 2 pictures are not there, for example imgs/xmlab4/source.jpg"),
    ],
)
def test_slake_refuses_other_rows(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    closed = slake_row(13, answer_type="CLOSED", answer="Yes") | changed
    slake(tmp_path)
    put(tmp_path / "test.json", [slake_row(12), closed])
    refused(Slake(str(tmp_path), expected={"questions": 2}), told)
