"""ScienceQA: problems and splits in two JSON files, a picture for about half of the questions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vlm.contracts.benchmark import Question
from vlm.contracts.errors import InputError
from vlm.evaluation.readers.files import Files, json_table, member
from vlm.evaluation.readers.rows import Ids, Row, check_counts, letter


@dataclass(frozen=True)
class ScienceQa:
    """with_pictures: True = only questions with a picture (IMG).   pictures: folder of a split and a problem.

    The field `context` is "Context: <hint>" and a line feed, empty without a hint. Lecture and solution are never
    shown.   expected: questions, with_pictures (those that have one).   checksums: table -> sha256.
    """

    folder: str
    split: str = "test"
    with_pictures: bool = False
    pictures: str = "images/{split}/{id}"
    expected: dict[str, int] | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return ["problems.json", "pid_splits.json"]

    def questions(self) -> Iterator[Question]:
        """Raises: InputError, also where problems and splits do not agree."""
        files = Files(self.folder, self.checksums)
        problems_path, splits_path = files.tables(self.files())
        problems, splits = json_table(problems_path), json_table(splits_path)
        listed = Row.of(str(splits_path), splits).texts(self.split)
        rows = {id: Row.of(f"{problems_path} problem {id}", member(problems_path, problems, id)) for id in listed}
        if len(rows) < len(listed):
            raise InputError(f"{splits_path}: split {self.split} names a problem twice; get it again")
        shown = {id: row for id, row in rows.items() if row.optional("image")}
        chosen = shown if self.with_pictures else rows
        check_counts(self.folder, {"questions": len(chosen), "with_pictures": len(shown)}, self.expected)
        files.present(self._picture(id, row) for id, row in shown.items())
        ids = Ids()
        for id, row in chosen.items():
            if row.text("split") != self.split:
                raise row.fault(f"its split is {row.text('split')}, but {splits_path.name} lists it in {self.split}")
            choices, hint = row.texts("choices"), row.optional("hint")
            gold = letter(row, choices, row.whole("answer"))
            pictures = (files.picture(self._picture(id, row)),) if id in shown else ()
            reference = {
                "choices": choices, "gold": gold, "has_image": bool(pictures), "subject": row.optional("subject"),
                "topic": row.optional("topic"),
            }  # fmt: skip
            fields = {"hint": hint, "context": f"Context: {hint}\n" if hint else ""}
            group = pictures[0].id if pictures else id
            name = ids.new(row, id, choices)
            yield Question(name, group, row.text("question"), reference, pictures, tuple(choices), fields)
        ids.tell()

    def _picture(self, id: str, row: Row) -> str:
        return f"{self.pictures.format(split=self.split, id=id)}/{row.text('image')}"
