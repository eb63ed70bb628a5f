"""MMMU and MathVista: choices and open questions in one table, each kind asked in its own way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.readers.written import cell, is_perfect, png, put_parquet, read, refused
from vlm.evaluation.readers.mathvista import MathVista
from vlm.evaluation.readers.mmmu import IMAGES, Mmmu


def mmmu_row(number: int = 1, **changed: Any) -> dict[str, Any]:
    pictures = {name: cell(place) if place < 2 else None for place, name in enumerate(IMAGES)}
    return {
        "id": f"validation_Art_{number}", "question": "In <image 1>, which is like <image 2>?",
        "options": "['it\\'s <image 1>', \"the 'right' one\"]", "explanation": "", **pictures, "img_type": "['Painting']",
        "answer": "B", "topic_difficulty": "Easy", "question_type": "multiple-choice", "subfield": "Drawing",
    } | changed  # fmt: skip


def open_row(number: int = 2, answer: str = "17") -> dict[str, Any]:
    return mmmu_row(number, question="How many? <image 1>", options="[]", answer=answer, question_type="open")


def mmmu(path: Path, *rows: dict[str, Any], **keys: Any) -> Mmmu:
    put_parquet(path / "Art/validation-00000-of-00001.parquet", rows, IMAGES)
    return Mmmu(str(path), **keys)


def test_mmmu_places_pictures_by_their_marks_in_question_and_options(tmp_path: Path) -> None:
    (question,) = read(mmmu(tmp_path, mmmu_row()))
    assert question.inline
    assert question.options == ("it's <image 1>", "the 'right' one")
    assert question.reference == {
        "subject": "Art", "question_type": "multiple-choice", "options": list(question.options), "gold": "B",
    }  # fmt: skip
    assert [picture.read() for picture in question.pictures] == [png(0), png(1)]
    assert question.prompt is None


def test_mmmu_asks_open_questions_in_their_own_way(tmp_path: Path) -> None:
    one, several = read(mmmu(tmp_path, open_row(), open_row(3, "['17', 'seventeen']")))
    assert one.prompt == "{question}\nAnswer the question using a single word or phrase."
    assert one.reference == {"subject": "Art", "question_type": "open", "gold": "17"}
    assert several.reference["gold"] == ["17", "seventeen"]
    assert (one.options, len(one.pictures)) == ((), 1)


def test_mmmu_shows_pictures_without_a_mark_in_front(tmp_path: Path) -> None:
    (question,) = read(mmmu(tmp_path, mmmu_row(question="Which?", options="['a', 'b']")))
    assert not question.inline
    assert len(question.pictures) == 2


def test_the_truth_is_right_in_every_kind_of_mmmu(tmp_path: Path) -> None:
    reader = mmmu(tmp_path, mmmu_row(), open_row(), expected={"questions": 2, "multiple-choice": 1, "open": 1})
    assert is_perfect(reader, "mmmu", lambda question: question.reference["gold"])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"options": "[open('/etc/passwd')]"}, "row 1: options is .* no list as Python writes it"),
        ({"options": "['a', 2]"}, "row 1: options is .* no list of texts"),
        ({"options": "'a'"}, "row 1: options is .* no list of texts"),
        ({"options": "['a']"}, "row 1: it has 1 options"),
        ({"answer": "C"}, "row 1: the right answer is option 2, counted from 0, of 2"),
        ({"answer": "?"}, "row 1: the right answer is '\\?', not a capital letter"),
        ({"question": "See <image 3>"}, "row 1: image_3 holds no picture"),
        ({"question": "See <image 9>"}, "row 1: image_3 holds no picture"),
        ({"question_type": "essay"}, "row 1: question_type is 'essay'"),
    ],
)
def test_mmmu_refuses_other_rows(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    refused(mmmu(tmp_path, mmmu_row(**changed)), told)


def test_mmmu_refuses_parts_of_the_whole(tmp_path: Path) -> None:
    reader = mmmu(tmp_path, mmmu_row(), expected={"questions": 1, "subjects": 30})
    refused(reader, "1 subjects, but 30 are published")
    refused(mmmu(tmp_path, mmmu_row(), mmmu_row()), "row 2: question validation_Art_1 is there a second time")


def math_row(pid: int, **changed: Any) -> dict[str, Any]:
    return {
        "pid": str(pid), "question": "How long is it?", "image": f"images/{pid}.jpg", "decoded_image": cell(pid),
        "choices": None, "unit": None, "precision": None, "answer": "3", "question_type": "free_form",
        "answer_type": "integer", "query": "Hint: ...",
    } | changed  # fmt: skip


CHOICE = math_row(
    1, choices=["3", "4.5"], answer="4.5", question_type="multi_choice", answer_type="float", precision=1.0
)
DECIMAL = math_row(2, answer="1.20", answer_type="float", precision=2.0, unit="cm")
LIST = math_row(4, answer="[1, 2]", answer_type="list")


def mathvista(path: Path, *rows: dict[str, Any], **keys: Any) -> MathVista:
    put_parquet(path / "data/testmini-00000-of-00001.parquet", rows, ("decoded_image",))
    return MathVista(str(path), **keys)


def test_mathvista_asks_each_kind_of_answer_in_its_own_way(tmp_path: Path) -> None:
    expected = {"questions": 4, "choice": 1, "integer": 1, "float": 1, "list": 1}
    choice, decimal, whole, several = read(mathvista(tmp_path, CHOICE, DECIMAL, math_row(3), LIST, expected=expected))
    assert choice.prompt is None
    assert choice.options == ("3", "4.5")
    assert decimal.prompt == "{question}\nAnswer the question using a single floating-point number with {places}."
    assert decimal.fields == {"unit": "cm", "places": "two decimal places"}
    assert whole.prompt == "{question}\nAnswer the question using a single integer number."
    assert several.prompt == "{question}\nAnswer the question using a Python list."
    assert decimal.reference == {
        "question_type": "free_form", "answer_type": "float", "answer": "1.20", "choices": None, "precision": 2,
    }  # fmt: skip
    assert decimal.pictures[0].read() == png(2)


def test_the_truth_is_right_in_every_kind_of_mathvista(tmp_path: Path) -> None:
    reader = mathvista(tmp_path, CHOICE, math_row(3), math_row(5, answer="1.2", answer_type="float", precision=1.0))
    assert is_perfect(reader, "mathvista", lambda question: question.reference["answer"])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"answer_type": "float"}, "row 1: precision is None; an answer with one or two decimal places"),
        ({"answer_type": "text"}, "row 1: answer_type is 'text'; one of float, integer, list"),
        ({"answer": ""}, "row 1: answer is empty"),
        (
            {"question_type": "multi_choice", "choices": ["4", "5"]},
            "row 1: the right answer '3' is none of the options",
        ),
    ],
)
def test_mathvista_refuses_other_rows(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    refused(mathvista(tmp_path, math_row(1, **changed)), told)


def test_mathvista_refuses_another_number_of_kinds(tmp_path: Path) -> None:
    refused(mathvista(tmp_path, CHOICE, expected={"choice": 540}), "1 choice, but 540 are published")
