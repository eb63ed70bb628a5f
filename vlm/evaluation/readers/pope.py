"""POPE: is this in the picture? One file of JSON Lines for each way to choose what is not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vlm.contracts.benchmark import Question
from vlm.evaluation.readers.files import Files, json_lines
from vlm.evaluation.readers.rows import Ids, check_counts

KINDS = ("random", "popular", "adversarial")


@dataclass(frozen=True)
class Pope:
    """tables: name of a table, from its kind.   pictures: their folder.

    Questions are numbered anew in each file, so an id is "random/12".
    expected: kind -> questions (3,000 each; an older release of random has 2,910).   checksums: table -> sha256.
    """

    folder: str
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    tables: str = "coco_pope_{kind}.json"
    pictures: str = "val2014"
    expected: dict[str, int] | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return [self.tables.format(kind=kind) for kind in self.kinds]

    def questions(self) -> Iterator[Question]:
        files = Files(self.folder, self.checksums)
        paths = files.tables(self.files())
        rows = {kind: list(json_lines(path)) for kind, path in zip(self.kinds, paths, strict=True)}
        check_counts(self.folder, {kind: len(part) for kind, part in rows.items()}, self.expected)
        files.present(f"{self.pictures}/{row.text('image')}" for part in rows.values() for row in part)
        ids = Ids()
        for kind, part in rows.items():
            for row in part:
                number = row.whole("question_id")
                reference = {"question_id": number, "category": kind, "label": row.one_of("label", ("yes", "no"))}
                picture = files.picture(f"{self.pictures}/{row.text('image')}")
                id = ids.new(row, f"{kind}/{number}")
                yield Question(id, picture.id, row.text("text"), reference, (picture,))
