"""MathVista: one parquet table of choices, whole numbers, decimals and lists, each kind with a prompt of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vlm.contracts.benchmark import Question
from vlm.evaluation.readers.files import Files
from vlm.evaluation.readers.parquet import Tables
from vlm.evaluation.readers.rows import Ids, Row, check_counts, letter_of

COLUMNS = ("pid", "question", "choices", "answer", "precision", "question_type", "answer_type", "unit")
PLACES = {1: "one decimal place", 2: "two decimal places"}


@dataclass(frozen=True)
class MathVista:
    """tables: a pattern.   prompts: of integer, float and list; choices take the benchmark's own.

    The prompt of float may name {places}, which is "one decimal place" or "two decimal places".
    expected: questions, choice, integer, float, list.   checksums: table -> sha256.
    """

    folder: str
    tables: str = "data/testmini-*.parquet"
    prompts: dict[str, str] = field(
        default_factory=lambda: {
            "integer": "{question}\nAnswer the question using a single integer number.",
            "float": "{question}\nAnswer the question using a single floating-point number with {places}.",
            "list": "{question}\nAnswer the question using a Python list.",
        }
    )
    expected: dict[str, int] | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return Files(self.folder).matching(self.tables)

    def questions(self) -> Iterator[Question]:
        """Raises: InputError, also for the test split, whose answers are not published."""
        paths = Files(self.folder, self.checksums).tables(self.files())
        kinds = Counter({"choice": 0, **dict.fromkeys(self.prompts, 0)})
        kinds.update(self._kind(row) for row in Tables(paths, COLUMNS))
        check_counts(self.folder, {"questions": kinds.total(), **kinds}, self.expected)
        ids = Ids()
        for row in Tables(paths, COLUMNS, ["decoded_image"]):
            kind, picture = self._kind(row), row.picture("decoded_image")
            choices = row.texts("choices") if kind == "choice" else []
            if choices:
                letter_of(row, choices, row.text("answer"))
            reference: dict[str, Any] = {
                "question_type": row.text("question_type"), "answer_type": row.text("answer_type"),
                "answer": row.text("answer"), "choices": choices or None, "precision": _precision(row),
            }  # fmt: skip
            fields = {"unit": row.optional("unit"), "places": PLACES.get(reference["precision"], "")}
            id = ids.new(row, row.name("pid"), choices)
            prompt = self.prompts.get(kind)
            yield Question(
                id, picture.id, row.text("question"), reference, (picture,), tuple(choices), fields, prompt=prompt
            )
        ids.tell()

    def _kind(self, row: Row) -> str:
        if row.one_of("question_type", ("multi_choice", "free_form")) == "multi_choice":
            return "choice"
        return row.one_of("answer_type", self.prompts)


def _precision(row: Row) -> int:
    """Decimal places; 0 where the table has none, and a whole number although its column may be of floats."""
    value = row.values["precision"]
    if row.values["answer_type"] == "float" and value not in PLACES:
        raise row.fault(f"precision is {value!r}; an answer with one or two decimal places is expected")
    return 0 if value is None else int(value)
