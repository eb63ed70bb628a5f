"""VQAv2: questions and annotations in two JSON files, ten human answers each, COCO's pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vlm.contracts.benchmark import Question
from vlm.evaluation.readers.files import Files, json_rows, member, slim_json
from vlm.evaluation.readers.rows import Ids, Row, check_counts

TYPES = ("yes/no", "number", "other")
ANSWERS = 10  # people who answered each question


@dataclass(frozen=True)
class VqaV2:
    """questions_file, annotations_file: the two tables.   pictures: folder and name of a picture, from its number.

    expected: questions.   checksums: table -> sha256.
    """

    folder: str
    questions_file: str = "v2_OpenEnded_mscoco_val2014_questions.json"
    annotations_file: str = "v2_mscoco_val2014_annotations.json"
    pictures: str = "val2014/COCO_val2014_{image_id:012d}.jpg"
    expected: dict[str, int] | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return [self.questions_file, self.annotations_file]

    def questions(self) -> Iterator[Question]:
        """Raises: InputError, also if the two files do not tell of the same questions."""
        files = Files(self.folder, self.checksums)
        asked_path, told_path = files.tables(self.files())
        asked = json_rows(asked_path, member(asked_path, slim_json(asked_path, _slim), "questions"))
        told = json_rows(told_path, member(told_path, slim_json(told_path, _slim), "annotations"))
        check_counts(self.folder, {"questions": len(asked)}, self.expected)
        annotations = _by_id(told)
        if len(asked) != len(told):
            raise told[0].fault(f"{len(told):,} annotations in all, but {len(asked):,} questions")
        files.present(self._picture(row) for row in asked)
        ids = Ids()
        for row in asked:
            number = row.whole("question_id")
            if number not in annotations:
                raise row.fault(f"question {number} has no annotation in {self.annotations_file}")
            gold = annotations[number]
            if gold.whole("image_id") != row.whole("image_id"):
                raise gold.fault(f"question {number} is about another picture than in {self.questions_file}")
            reference = {
                "answers": gold.texts("answers", count=ANSWERS),
                "answer_type": gold.one_of("answer_type", TYPES),
                "question_type": gold.text("question_type"),
            }
            picture = files.picture(self._picture(row))
            yield Question(ids.new(row, str(number)), picture.id, row.text("question"), reference, (picture,))

    def _picture(self, row: Row) -> str:
        return self.pictures.format(image_id=row.whole("image_id"))


def _by_id(rows: list[Row]) -> Mapping[int, Row]:
    ids, found = Ids(), {}
    for row in rows:
        number = row.whole("question_id")
        ids.new(row, str(number))
        found[number] = row
    return found


def _slim(entry: dict[str, Any]) -> Any:
    """One of the ten answers becomes its text: two million small objects would take a gigabyte."""
    if "answer_id" in entry and isinstance(entry.get("answer"), str):
        return sys.intern(entry["answer"])
    return entry
