"""MME: pairs of a question with yes and one with no about the same picture, in 14 categories."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from vlm.contracts.benchmark import Question
from vlm.contracts.errors import InputError
from vlm.evaluation.readers.parquet import Tables
from vlm.evaluation.readers.published_tables import PublishedTables
from vlm.evaluation.readers.rows import Ids, check_counts

ASK = " Please answer yes or no."
COLUMNS = ("question_id", "question", "answer", "category")


@dataclass(frozen=True)
class Mme(PublishedTables):
    """tables: a pattern. The field `asked` is the question without its last sentence.

    The two questions of a pair share their published id, so an id is "existence/x.png/0".
    expected: questions, or a category -> its questions.   checksums: table -> sha256.
    """

    def questions(self) -> Iterator[Question]:
        """Raises: InputError, also for a picture that has not one question with yes and one with no."""
        paths = self.paths()
        self._check(Tables(paths, COLUMNS))
        ids, asked = Ids(), Counter[tuple[str, str]]()
        for row in Tables(paths, COLUMNS, ["image"]):
            published, category, text = row.text("question_id"), row.text("category"), row.text("question")
            number = asked[category, published]
            asked[category, published] += 1
            reference = {
                "category": category, "image": published, "question_id": published, "answer": row.text("answer")
            }  # fmt: skip
            picture, id = row.picture("image"), ids.new(row, _named(category, published, number))
            fields = {"asked": text.removesuffix(ASK)}
            yield Question(id, _named(category, published), text, reference, (picture,), fields=fields)

    def _check(self, rows: Tables) -> None:
        """All of the text, before a picture is read."""
        answers: dict[tuple[str, str], list[str]] = defaultdict(list)
        counts = Counter[str]()
        for row in rows:
            pair = row.text("category"), row.text("question_id")
            answers[pair].append(row.one_of("answer", ("Yes", "No")))
            counts[pair[0]] += 1
        check_counts(self.folder, {**counts, "questions": len(rows)}, self.expected)
        for (category, published), said in answers.items():
            if sorted(said) != ["No", "Yes"]:
                raise InputError(
                    f"{self.folder}: picture {published} of {category} has the answers {', '.join(said)}; each picture "
                    "must have one question with Yes and one with No, so get the files again"
                )


def _named(category: str, published: str, number: int | None = None) -> str:
    """The published id begins with the category already; image names alone repeat across categories."""
    name = published if published.startswith(f"{category}/") else f"{category}/{published}"
    return name if number is None else f"{name}/{number}"
