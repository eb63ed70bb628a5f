"""Benchmarks that are one parquet table of pictures and questions: AI2D, ChartQA and DocVQA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vlm.contracts.benchmark import Question
from vlm.evaluation.readers.parquet import Tables
from vlm.evaluation.readers.published_tables import PublishedTables
from vlm.evaluation.readers.rows import Ids, Row, check_counts, letter

CHART_TYPES = ("human_test", "augmented_test")


@dataclass(frozen=True)
class Ai2d(PublishedTables):
    """Four options, the right one as the text of its number from 0. Rows have no id: it is their place from 0.

    tables: a pattern.   expected: questions.   checksums: table -> sha256.
    """

    def questions(self) -> Iterator[Question]:
        """Raises: InputError."""
        ids = Ids()
        for number, row in enumerate(_rows(self, ("question", "options", "answer"))):
            options, answer = row.texts("options"), row.name("answer")
            if not answer.isdecimal():
                raise row.fault(f"answer is {answer!r:.40}, not the number of an option")
            reference = {"options": options, "gold": letter(row, options, int(answer))}
            yield _question(row, ids.new(row, str(number), options), reference, options)
        ids.tell()


@dataclass(frozen=True)
class ChartQa(PublishedTables):
    """type: human_test, written by people, or augmented_test, made from tables. Rows have no id: it is their place.

    tables: a pattern.   expected: questions, human_test, augmented_test.   checksums: table -> sha256.
    """

    def questions(self) -> Iterator[Question]:
        """Raises: InputError."""
        ids = Ids()
        for number, row in enumerate(_rows(self, ("question", "answer", "type"), {"type": CHART_TYPES})):
            reference = {"answer": row.text("answer"), "type": row.text("type")}
            yield _question(row, ids.new(row, str(number)), reference)


@dataclass(frozen=True)
class DocVqa(PublishedTables):
    """Several right spellings a question; the answers of the test split are not published.

    tables: a pattern.   expected: questions.   checksums: table -> sha256.
    """

    tables: str = "DocVQA/validation-*.parquet"

    def questions(self) -> Iterator[Question]:
        """Raises: InputError, also for rows without answers, as the test split has them."""
        ids = Ids()
        for row in _rows(self, ("questionId", "question", "answers")):
            answers = row.texts("answers")
            if not answers:
                raise row.fault("answers is empty")
            yield _question(row, ids.new(row, row.name("questionId")), answers)


def _rows(reader: PublishedTables, columns: tuple[str, ...], kinds: Any = None) -> Iterator[Row]:
    """With pictures, after counts. kinds: column -> its values, which are counted too."""
    paths = reader.paths()
    table = Tables(paths, columns)
    found = {"questions": len(table)}
    for column, values in (kinds or {}).items():
        counts = Counter(row.one_of(column, values) for row in table)
        found |= {value: counts[value] for value in values}
    check_counts(reader.folder, found, reader.expected)
    yield from Tables(paths, columns, ["image"])


def _question(row: Row, id: str, reference: Any, options: list[str] | None = None) -> Question:
    picture = row.picture("image")
    return Question(id, picture.id, row.text("question"), reference, (picture,), tuple(options or ()))
