"""A user's own conversations: one JSON object a line, with or without pictures, split by picture or by text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from data_prep.chats import chat
from data_prep.reading.places import Pictures
from data_prep.reading.tables import count_lines
from data_prep.rows import Inputs, Picture, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

FORM = (
    'each line is {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], '
    '"images": ["path"]} or {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}; '
    "<image> in a user's text stands for the next picture"
)


@dataclass(frozen=True)
class ChatJsonl:
    """Rows of the one .jsonl in the folder. license: what the user says of texts and pictures.

    "independent": true in a row says that its questions are separate ones about the same pictures.
    """

    __pydantic_config__: ClassVar = STRICT
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return count_lines(_only_file(inputs.only()))

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for no or several files, one of another form, an unknown role, or a path that leaves."""
        file = inputs.note(_only_file(inputs.only()))
        pictures = Pictures(inputs, ["."], "Paths count from the folder that is given with from=")
        for number, line in _lines(file):
            origin = Origin(file.name, number, f"line {number + 1}")
            try:
                content = _object(file, number, line)
                origin = Origin(file.name, number, str(content.get("id", origin.id)))
                yield self._row(pictures, f"{file} line {number + 1}", origin, content)
            except Unfit as fault:
                yield Skip(None, origin, fault.reason, fault.detail)

    def _row(self, pictures: Pictures, where: str, origin: Origin, content: dict[str, Any]) -> Row:
        names = _names(content)
        found = tuple(Picture(pictures.at(name, where), name) for name in names)
        messages, repaired = chat(content.get("messages", content.get("conversations")), len(names), where)
        independent = content.get("independent", False)
        if not isinstance(independent, bool):
            raise Unfit("row_malformed", f'"independent" is {independent!r}; give true or false')
        meta = {"independent": True} if independent else None
        return Row(None, origin, found, self.license, messages=messages, meta=meta, repaired=tuple(repaired))


def _only_file(folder: Path) -> Path:
    files = sorted(folder.glob("*.jsonl"))
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        raise InputError(f"{folder} must hold exactly one file of rows (chats.jsonl), found: {found}; {FORM}")
    return files[0]


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """(line counted from 0, text) of each line that is not blank."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream):
            try:
                text = line.decode("utf-8-sig" if number == 0 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise InputError(f"{file} line {number + 1} is not UTF-8 ({error.reason}); save it as UTF-8") from error
            if text:
                yield number, text


def _object(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        fault = f"is no JSON ({error})"
    else:
        if isinstance(content, dict) and isinstance(content.get("messages", content.get("conversations")), list):
            return content
        fault = "is no object with a list of messages or conversations"
    if number == 0:
        raise InputError(f"{file} line 1 {fault}; {FORM}")
    raise Unfit("row_malformed", f"the line {fault}")


def _names(content: dict[str, Any]) -> list[str]:
    """Paths of the pictures."""
    given = content.get("images", content.get("image"))
    names = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise Unfit("row_malformed", f'"images" is {str(given)[:60]!r}; give a list of paths')
    return names
