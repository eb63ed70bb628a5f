"""Video-MME: one parquet table, three questions a clip, options that begin with their letters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from vlm.contracts.benchmark import Question
from vlm.evaluation.readers.files import Files
from vlm.evaluation.readers.parquet import Tables
from vlm.evaluation.readers.rows import LETTERS, Ids, Row, check_counts, letter_named

KEPT = ("duration", "domain", "sub_category", "task_type")
COLUMNS = ("videoID", "question_id", "question", "options", "answer", *KEPT)
DURATIONS = ("short", "medium", "long")
OPTIONS = 4


@dataclass(frozen=True)
class VideoMme:
    """tables: a pattern.   clips: path of a clip, from its id. Subtitles are not shown: with them it is another test.

    expected: questions, clips, short, medium, long.   checksums: table -> sha256.
    """

    folder: str
    tables: str = "videomme/test-*.parquet"
    clips: str = "data/{id}.mp4"
    expected: dict[str, int] | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[str]:
        return Files(self.folder).matching(self.tables)

    def questions(self) -> Iterator[Question]:
        """Raises: InputError, also for clips that are not there (all are looked for first)."""
        files = Files(self.folder, self.checksums)
        rows = list(Tables(files.tables(self.files()), COLUMNS))
        lengths = Counter(row.one_of("duration", DURATIONS) for row in rows)
        clips = {row.text("videoID"): self.clips.format(id=row.text("videoID")) for row in rows}
        found = {"questions": len(rows), "clips": len(clips), **{name: lengths[name] for name in DURATIONS}}
        check_counts(self.folder, found, self.expected)
        files.present(clips.values(), "clips")
        ids = Ids()
        for row in rows:
            options = row.texts("options", count=OPTIONS)
            bare = [_bare(row, letter, option) for letter, option in zip(LETTERS, options, strict=False)]
            reference = {"options": options, "gold": letter_named(row, options, row.text("answer"))}
            reference |= {name: row.text(name) for name in KEPT}
            id, name = ids.new(row, row.text("question_id"), bare), row.text("videoID")
            yield Question(id, name, row.text("question"), reference, (files.clip(clips[name]),), tuple(bare))
        ids.tell()


def _bare(row: Row, letter: str, option: str) -> str:
    """The option without "A. ", which the prompt writes before it again."""
    found = re.match(rf"{letter}\.\s?", option)
    if found is None:
        raise row.fault(f"option {option!r:.60} does not begin with {letter!r} and a full stop")
    return option[found.end() :]
