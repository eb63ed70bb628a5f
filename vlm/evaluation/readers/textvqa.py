"""TextVQA: one JSON file with ten human answers a question, pictures of Open Images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vlm.contracts.benchmark import Question
from vlm.evaluation.readers.files import Files, json_rows, json_table, member
from vlm.evaluation.readers.rows import Ids, check_counts
from vlm.evaluation.readers.vqav2 import ANSWERS


@dataclass(frozen=True)
class TextVqa:
    """pictures: their folder; those of the validation split lie in one called train.

    The field `capitalized` is the question with its first letter upper and all others lower case.
    expected: questions.   checksums: table -> sha256.
    """

    folder: str
    table: str = "TextVQA_0.5.1_val.json"
    pictures: str = "train_images"
    expected: dict[str, int] | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return [self.table]

    def questions(self) -> Iterator[Question]:
        """Raises: InputError, also for the test split, whose answers are not published."""
        files = Files(self.folder, self.checksums)
        (path,) = files.tables(self.files())
        rows = json_rows(path, member(path, json_table(path), "data"))
        check_counts(self.folder, {"questions": len(rows)}, self.expected)
        names = [f"{self.pictures}/{row.name('image_id')}.jpg" for row in rows]
        files.present(names)
        ids = Ids()
        for row, name in zip(rows, names, strict=True):
            id, text, picture = ids.new(row, row.name("question_id")), row.text("question"), files.picture(name)
            answers = row.texts("answers", count=ANSWERS)
            fields = {"capitalized": text.capitalize()}
            yield Question(id, picture.id, text, answers, (picture,), fields=fields)
