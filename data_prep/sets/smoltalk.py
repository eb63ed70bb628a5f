"""SmolTalk: talks without pictures, each with the licence of the collection that it was taken from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from data_prep.chats import chat
from data_prep.reading.tables import parquet_rows, row_count
from data_prep.rows import Inputs, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

FORM = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], "source": "…"}'
SPLITS = ("train", "test")
# The parts lack `source`: all their rows are of one. Some of them say more of a row, which no training needs.
OPTIONAL = {"source": "string"} | dict.fromkeys(
    ("full_topic", "category", "difficulty", "quality", "reward_model_score", "conversation_tokens"), "any"
)
NAME = re.compile(r"(?P<split>\w+)-(?P<number>\d{5})-of-(?P<of>\d{5})\.parquet")


@dataclass(frozen=True)
class SmolTalk:
    """Rows of train-*.parquet, then of test-*.parquet. `<image>` in a text is text: the set has no pictures.

    under: folder of the files below the set's, and of one part also the source of its rows.
    without: sources whose rows are left out.   licenses: source of a row -> its licence.
    """

    __pydantic_config__: ClassVar = STRICT
    under: str
    without: list[str]
    licenses: dict[str, str]

    def total(self, inputs: Inputs) -> int | None:
        return sum(row_count(path) for split in SPLITS for path in self._files(inputs, split))

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """In the files' order. Raises: InputError for a missing or other file, an unknown role or source."""
        for split in SPLITS:
            for path in self._files(inputs, split):
                inputs.note(path)
                for number, content in parquet_rows(path, {"messages": "list"}, FORM, OPTIONAL):
                    origin = Origin(path.name, number, f"{path.stem}-{number}")
                    try:
                        yield self._row(split, origin, f"{path} row {number} (from 0)", content)
                    except Unfit as fault:
                        yield Skip(split, origin, fault.reason, fault.detail)

    def _row(self, split: str, origin: Origin, where: str, content: dict[str, Any]) -> Row:
        source = content.get("source", Path(self.under).name)
        if not source:
            raise Unfit("row_malformed", "no source, and so no licence")
        if source in self.without:
            raise Unfit("excluded", f"of {source}, which source.reader.without names")
        if source not in self.licenses:
            raise InputError(
                f"{where}: source '{source}' has no licence; find it out and give it with "
                f"+source.reader.licenses.{source}=LICENCE. Known: {', '.join(self.licenses)}"
            )
        messages, repaired = chat(content["messages"], 0, where, placeholders=False)
        meta = {"source": source} | {
            key: content[key] for key in OPTIONAL if key != "source" and content.get(key) is not None
        }
        license = self.licenses[source]
        return Row(split, origin, (), license, messages=messages, meta=meta, repaired=tuple(repaired))

    def _files(self, inputs: Inputs, split: str) -> list[Path]:
        """In order. Raises: InputError if there is none, or one of the numbered ones is missing."""
        folder = inputs.only() / self.under
        files = sorted(folder.glob(f"{split}-*.parquet"))
        named = [NAME.fullmatch(path.name) for path in files]
        wanted = {int(match["of"]) for match in named if match}
        numbers = [int(match["number"]) for match in named if match]
        if len(numbers) != len(files) or len(wanted) != 1 or numbers != list(range(*wanted)):
            found = ", ".join(path.name for path in files) or "none"
            raise InputError(
                f"{folder} must hold all of {split}-00000-of-0000N.parquet, found: {found}; get what is missing, or "
                "name another folder with source.reader.under=FOLDER"
            )
        return files
