"""MMMU: a parquet table a subject, up to seven pictures a question, placed by marks in question and options."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from vlm.contracts.benchmark import Question
from vlm.evaluation.readers.files import Files
from vlm.evaluation.readers.parquet import Tables
from vlm.evaluation.readers.rows import Ids, Row, check_counts, letter_named

COLUMNS = ("id", "question", "options", "answer", "question_type")
IMAGES = tuple(f"image_{number}" for number in range(1, 8))
MARK = re.compile(r"<image (\d+)>")


@dataclass(frozen=True)
class Mmmu:
    """tables: a pattern; the folder of a table is its subject.   open_prompt: of questions without options.

    A mark stands where its picture is shown, so one used twice shows it twice.
    expected: questions, subjects, multiple-choice, open.   checksums: table -> sha256.
    """

    folder: str
    tables: str = "*/validation-*.parquet"
    open_prompt: str = "{question}\nAnswer the question using a single word or phrase."
    expected: dict[str, int] | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return Files(self.folder).matching(self.tables)

    def questions(self) -> Iterator[Question]:
        """Raises: InputError, also for the test split, whose answers are not published ("?")."""
        names = self.files()
        paths = Files(self.folder, self.checksums).tables(names)
        every = {name: Tables([path], COLUMNS) for name, path in zip(names, paths, strict=True)}
        subjects = {name: PurePosixPath(name).parent.name for name in names}
        kinds = Counter({"multiple-choice": 0, "open": 0})
        for table in every.values():
            kinds.update(row.one_of("question_type", ("multiple-choice", "open")) for row in table)
        found = {"questions": kinds.total(), "subjects": len(set(subjects.values())), **kinds}
        check_counts(self.folder, found, self.expected)
        ids = Ids()
        for name, path in zip(names, paths, strict=True):
            for row in Tables([path], COLUMNS, IMAGES):
                yield self._question(row, subjects[name], ids)
        ids.tell()

    def _question(self, row: Row, subject: str, ids: Ids) -> Question:
        kind, options, answer = row.text("question_type"), _texts(row, "options"), row.text("answer")
        text = row.text("question")
        reference: dict[str, Any] = {"subject": subject, "question_type": kind}
        if kind == "open":
            reference["gold"] = _texts(row, "answer") if answer.startswith("[") else answer
        else:
            reference |= {"options": options, "gold": letter_named(row, options, answer)}
        id = ids.new(row, row.text("id"), options)
        prompt = self.open_prompt if kind == "open" else None
        marks = [int(number) for part in (text, *options) for number in MARK.findall(part)]
        pictures = tuple(row.picture(f"image_{number}") for number in range(1, max(marks, default=0) + 1))
        if not marks:  # without a place of their own pictures stand in front
            pictures = tuple(picture for picture in row.pictures.values() if picture is not None)
        return Question(id, id, text, reference, pictures, tuple(options), inline=bool(marks), prompt=prompt)


def _texts(row: Row, key: str) -> list[str]:
    """A Python list that is written as text, read as a literal."""
    value = row.text(key)
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise row.fault(f"{key} is {value!r:.80}, no list as Python writes it ({error})") from error
    if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
        raise row.fault(f"{key} is {value!r:.80}, no list of texts")
    return found
