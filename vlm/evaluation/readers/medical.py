"""Medical questions: VQA-RAD and PathVQA as parquet, SLAKE as JSON, PMC-VQA as CSV; no answer is repaired."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vlm.contracts.benchmark import Question
from vlm.contracts.errors import InputError
from vlm.evaluation.readers.files import Files, json_rows, json_table
from vlm.evaluation.readers.parquet import Tables
from vlm.evaluation.readers.published_tables import PublishedTables
from vlm.evaluation.readers.rows import Ids, Row, check_counts, letter_named

TYPES = ("OPEN", "CLOSED")
PMC_COLUMNS = ("Figure_path", "Question", "Answer", "Choice A", "Choice B", "Choice C", "Choice D", "Answer_label")


@dataclass(frozen=True)
class MedicalTable(PublishedTables):
    """Picture, question and answer in parquet: VQA-RAD and PathVQA. Rows have no id: it is their place from 0.

    The table does not say which questions are closed; here those with the answer yes or no are.
    tables: a pattern.   expected: questions, OPEN, CLOSED.   checksums: table -> sha256.
    """

    def questions(self) -> Iterator[Question]:
        """Raises: InputError."""
        paths = self.paths()
        kinds = Counter(_kind(row.text("answer")) for row in Tables(paths, ["answer"]))
        found = {"questions": kinds.total(), **{name: kinds[name] for name in TYPES}}
        check_counts(self.folder, found, self.expected)
        for number, row in enumerate(Tables(paths, ["question", "answer"], ["image"])):
            answer, picture = row.text("answer"), row.picture("image")
            reference = {"answer": answer, "answer_type": _kind(answer)}
            yield Question(str(number), picture.id, row.text("question"), reference, (picture,))


@dataclass(frozen=True)
class Slake:
    """A JSON list. language: "en", "zh", or None for both.   pictures: their folder.

    expected: questions, OPEN, CLOSED, of the language.   checksums: table -> sha256.
    """

    folder: str
    table: str = "test.json"
    language: str | None = "en"
    pictures: str = "imgs"
    expected: dict[str, int] | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return [self.table]

    def questions(self) -> Iterator[Question]:
        """Raises: InputError."""
        files = Files(self.folder, self.checksums)
        (path,) = files.tables(self.files())
        rows = json_rows(path, json_table(path))
        chosen = [row for row in rows if self.language in (None, row.one_of("q_lang", ("en", "zh")))]
        kinds = Counter(row.one_of("answer_type", TYPES) for row in chosen)
        found = {"questions": len(chosen), **{name: kinds[name] for name in TYPES}}
        check_counts(self.folder, found, self.expected)
        files.present(self._picture(row) for row in chosen)
        ids = Ids()
        for row in chosen:
            picture = files.picture(self._picture(row))
            reference = {"answer": row.text("answer", empty=True), "answer_type": row.text("answer_type")}
            reference |= {"modality": row.optional("modality"), "content_type": row.optional("content_type")}
            id = ids.new(row, row.name("qid"))
            yield Question(id, picture.id, row.text("question"), reference, (picture,))

    def _picture(self, row: Row) -> str:
        return f"{self.pictures}/{row.text('img_name')}"


@dataclass(frozen=True)
class PmcVqa:
    """A CSV of choices about figures. Rows have no id: it is their place from 0.

    Options are shown without the letter that most of them begin with, " A:", since the prompt writes one.
    expected: questions.   checksums: table -> sha256.
    """

    folder: str
    table: str = "test_clean.csv"
    pictures: str = "images"
    expected: dict[str, int] | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return [self.table]

    def questions(self) -> Iterator[Question]:
        """Raises: InputError, also for the second version, whose Answer is a letter."""
        files = Files(self.folder, self.checksums)
        (path,) = files.tables(self.files())
        rows = _csv_rows(path)
        check_counts(self.folder, {"questions": len(rows)}, self.expected)
        names = [f"{self.pictures}/{row.text('Figure_path')}" for row in rows]
        files.present(names)
        ids = Ids()
        for number, (row, name) in enumerate(zip(rows, names, strict=True)):
            options = [_bare(letter, row.text(f"Choice {letter}")) for letter in "ABCD"]
            gold = letter_named(row, options, row.text("Answer_label").strip())
            id, picture = ids.new(row, str(number), options), files.picture(name)
            reference = {"options": options, "gold": gold}
            yield Question(id, picture.id, row.text("Question"), reference, (picture,), tuple(options))
        ids.tell()


def _kind(answer: str) -> str:
    return "CLOSED" if answer.strip().lower() in ("yes", "no") else "OPEN"


def _bare(letter: str, option: str) -> str:
    return re.sub(rf"^\s*{letter}\s*:\s*", "", option).strip()


def _csv_rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            names = next(reader, [])
            missing = [name for name in PMC_COLUMNS if name not in names]
            if missing:
                raise InputError(
                    f"{path} has no column {', '.join(missing)} (found {', '.join(names)[:200]}); it is not the first "
                    "version of PMC-VQA"
                )
            rows = []
            for number, cells in enumerate(reader, 1):
                if len(cells) != len(names):
                    raise InputError(f"{path} row {number} has {len(cells)} cells, not {len(names)}; get it again")
                rows.append(Row(f"{path} row {number}", dict(zip(names, cells, strict=True))))
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path} is no CSV ({error}); get it again") from error
    return rows
