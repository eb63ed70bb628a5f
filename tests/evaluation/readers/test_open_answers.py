"""VQAv2, TextVQA, ChartQA, DocVQA: open questions in the published forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.readers.written import cell, is_perfect, png, put, put_parquet, read, refused
from vlm.evaluation.readers.hub_tables import ChartQa, DocVqa
from vlm.evaluation.readers.textvqa import TextVqa
from vlm.evaluation.readers.vqav2 import VqaV2

QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"


def ten(said: str, count: int = 10) -> list[dict[str, Any]]:
    return [{"answer": said, "answer_confidence": "maybe", "answer_id": number} for number in range(1, count + 1)]


def vqav2(path: Path, **changed: Any) -> str:
    """Two questions about one picture. changed: keys of the second annotation."""
    ids = [{"image_id": 42, "question_id": 42000 + number} for number in range(2)]
    asked = [{**own, "question": f"what is number {place}?"} for place, own in enumerate(ids)]
    kinds = [("yes/no", "is the", "yes"), ("other", "what", "red boat")]
    told = [
        {**own, "answer_type": kind, "question_type": begin, "multiple_choice_answer": said, "answers": ten(said)}
        for own, (kind, begin, said) in zip(ids, kinds, strict=True)
    ]
    told[1] |= changed
    put(path / QUESTIONS, {"info": {}, "questions": asked})
    put(path / ANNOTATIONS, {"info": {}, "annotations": told})
    put(path / "val2014/COCO_val2014_000000000042.jpg", png())
    return str(path)


def test_vqav2_joins_questions_and_annotations(tmp_path: Path) -> None:
    first, second = read(VqaV2(vqav2(tmp_path), expected={"questions": 2}))
    assert (first.id, second.id) == ("42000", "42001")
    assert first.group == second.group == first.pictures[0].id == "val2014/COCO_val2014_000000000042.jpg"
    assert second.text == "what is number 1?"
    assert second.reference == {"answers": ["red boat"] * 10, "answer_type": "other", "question_type": "what"}
    assert is_perfect(VqaV2(str(tmp_path)), "vqav2", lambda question: question.reference["answers"][0])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"question_id": 7}, "row 2: question 42001 has no annotation in v2_mscoco"),
        ({"question_id": 42000}, "row 2: question 42000 is there a second time"),
        ({"image_id": 43}, "row 2: question 42001 is about another picture"),
        ({"answers": ten("x", 9)}, "row 2: answers holds 9 entries, not 10"),
        ({"answers": [4] * 10}, "row 2: answers holds 4, which is no text"),
        ({"answer_type": "maybe"}, "row 2: answer_type is 'maybe'; one of number, other, yes/no"),
    ],
)
def test_vqav2_refuses_what_does_not_belong_together(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    refused(VqaV2(vqav2(tmp_path, **changed)), told)


def test_vqav2_refuses_other_files(tmp_path: Path) -> None:
    vqav2(tmp_path)
    refused(VqaV2(str(tmp_path), expected={"questions": 214354}), "2 questions, but 214,354 are published")
    put(tmp_path / QUESTIONS, {"annotations": []})
    refused(VqaV2(str(tmp_path)), r"has no 'questions' \(found annotations\); it is not of the published form")
    put(tmp_path / QUESTIONS, {"questions": {}})
    refused(VqaV2(str(tmp_path)), "is dict, not a list")


def textvqa(path: Path, **changed: Any) -> TextVqa:
    row = {
        "question": "What is the Brand of This camera?", "question_id": 34602, "image_id": "003a8ae2ef43b901",
        "image_classes": ["Camera"], "answers": ["dakota"] * 8 + ["clos culombu", "nous les gosses"],
        "flickr_original_url": "", "set_name": "val",
    }  # fmt: skip
    put(
        path / "TextVQA_0.5.1_val.json",
        {"dataset_type": "val", "data": [row, {**row, "question_id": 34603, **changed}]},
    )
    put(path / "train_images/003a8ae2ef43b901.jpg", png())
    return TextVqa(str(path))


def test_textvqa_gives_ten_answers_and_the_question_in_lower_case(tmp_path: Path) -> None:
    question, _ = read(textvqa(tmp_path))
    assert question.id == "34602"
    assert question.reference[:2] == ["dakota", "dakota"]
    assert question.text == "What is the Brand of This camera?"
    assert question.fields["capitalized"] == "What is the brand of this camera?"
    assert question.pictures[0].read() == png()
    assert is_perfect(TextVqa(str(tmp_path)), "textvqa", lambda question: "Dakota")


def test_textvqa_without_answers_is_the_test_split_and_refused(tmp_path: Path) -> None:
    refused(textvqa(tmp_path, answers=["dakota"]), "row 2: answers holds 1 entries, not 10")


def chartqa(path: Path, **changed: Any) -> ChartQa:
    row = {"type": "human_test", "question": "How many?", "answer": "14", "image": cell(1)}
    more = {**row, "type": "augmented_test", "answer": "0.57", "image": cell(2), **changed}
    put_parquet(path / "data/test-00000-of-00001.parquet", [row, more])
    return ChartQa(str(path), expected={"questions": 2, "human_test": 1, "augmented_test": 1})


def test_chartqa_tells_who_asked(tmp_path: Path) -> None:
    first, second = read(chartqa(tmp_path))
    assert (first.id, second.id) == ("0", "1")
    assert second.reference == {"answer": "0.57", "type": "augmented_test"}
    assert is_perfect(chartqa(tmp_path), "chartqa", lambda question: question.reference["answer"])
    refused(chartqa(tmp_path, type="human_test"), "2 human_test, but 1 are published")
    refused(chartqa(tmp_path, type="human"), "row 2: type is 'human'")


def docvqa(path: Path, answers: list[str]) -> DocVqa:
    row = {"questionId": "49153", "question": "What is the title?", "docId": 14465, "answers": answers, "image": cell()}
    put_parquet(path / "DocVQA/validation-00000-of-00001.parquet", [row])
    return DocVqa(str(path), expected={"questions": 1})


def test_docvqa_gives_every_spelling(tmp_path: Path) -> None:
    (question,) = read(docvqa(tmp_path, ["T.F. Riehl", "t.f. riehl"]))
    assert (question.id, question.reference) == ("49153", ["T.F. Riehl", "t.f. riehl"])
    assert is_perfect(docvqa(tmp_path, ["T.F. Riehl"]), "docvqa", lambda question: question.reference[0])
    refused(docvqa(tmp_path / "test", []), "row 1: answers is")
