"""Files of LLaVA's form: one JSON array of {"id", "image", "conversations"}, the pictures in a folder or an archive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from data_prep.chats import chat
from data_prep.reading.places import Pictures
from data_prep.reading.tables import json_rows, layout
from data_prep.rows import Inputs, Picture, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Message, Origin, TextPart

FORM = '{"id": "…", "image": "path", "conversations": [{"from": "human", "value": "<image>\\n…"}, {"from": "gpt", "value": "…"}]}'
KEYS = {"id", "image", "conversations"}


@dataclass(frozen=True)
class Llava:
    """Rows of one file. kind: "chat" = the turns as they are; "caption" = one answer, its question dropped.

    file: name in the folder.   also: keys beside the three, kept in meta.
    pictures: names that the pictures' folder, zip or tar may have, "." = the folder itself, the first found is taken.
    pictures_in: where that lies, None = beside the file.   text_rows: whether rows may have no picture.
    turns: "first" keeps the first question and answer only.   license: of texts and pictures.
    """

    __pydantic_config__: ClassVar = STRICT
    file: str
    also: list[str]
    pictures: list[str]
    pictures_in: str | None
    kind: Literal["chat", "caption"]
    turns: Literal["all", "first"]
    text_rows: bool
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return None

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """In the file's order. Raises: InputError for a missing file, one of another form, and as Pictures does."""
        path = self._path(inputs)
        pictures = self._pictures(inputs)
        inputs.note(path)
        for number, content in json_rows(path, FORM):
            origin = Origin(path.name, number, str(number))
            where = f"{path} row {number} (from 0)"
            try:
                row = self._checked(content, where, first=number == 0)
                origin = Origin(path.name, number, _id(row))
                yield self._row(row, origin, where, pictures)
            except Unfit as fault:
                yield Skip(None, origin, fault.reason, fault.detail)

    def _path(self, inputs: Inputs) -> Path:
        path = inputs.only() / self.file
        if not path.is_file():
            raise InputError(
                f"{path} is missing; put the published file there, or name another of the same form with "
                "source.reader.file=NAME"
            )
        if layout(path) != "array":
            raise InputError(
                f"{path} holds one JSON object a line; expected one JSON array of {FORM}. It is not the published "
                "file: get that, or take source=chat_jsonl, which reads such lines"
            )
        return path

    def _pictures(self, inputs: Inputs) -> Pictures:
        home = None if self.pictures_in is None else Path(self.pictures_in)
        remedy = (
            f"Put one of {', '.join(self.pictures)} there, name the folder that holds it with "
            "source.reader.pictures_in=DIR, or another name with source.reader.pictures=[NAME]"
        )
        return Pictures(inputs, self.pictures, remedy, home=home)

    def _checked(self, content: Any, where: str, *, first: bool) -> dict[str, Any]:
        """Raises: Unfit for a row of another form, InputError if it is the first: then the file is another one."""
        if isinstance(content, Unfit):
            raise content
        if isinstance(content, dict):
            missing, unknown = {"id", "conversations"} - set(content), set(content) - KEYS - set(self.also)
            told = [f"has no {name}" for name in sorted(missing)] + [f"has a key {key!r}" for key in sorted(unknown)]
            hint = "; further keys are allowed, and kept in meta, with source.reader.also=[KEY]" if unknown else ""
        else:
            told, hint = [f"is {str(content)[:60]!r}"], ""
        if told and first:
            raise InputError(f"{where} {' and '.join(told)}; expected {FORM}. Is it the right file?{hint}")
        if told:
            raise Unfit("row_malformed", f"the row {' and '.join(told)}{hint}")
        return content

    def _row(self, content: dict[str, Any], origin: Origin, where: str, pictures: Pictures) -> Row:
        names = self._names(content)
        if self.kind == "caption":
            _single(content["conversations"], names)
        messages, repaired = chat(content["conversations"], len(names), where)
        if self.turns == "first" and len(kept := _first(messages, len(names))) < len(messages):
            messages, repaired = kept, [*repaired, "later_turns_dropped"]
        found = tuple(Picture(pictures.at(name, where), name) for name in names)
        meta = {key: content[key] for key in self.also if content.get(key)} or None
        if self.kind == "chat":
            return Row(None, origin, found, self.license, messages=messages, meta=meta, repaired=tuple(repaired))
        caption = " ".join(_text(messages[-1]).split())
        return Row(None, origin, found, self.license, caption=caption, meta=meta, repaired=("prompt_dropped",))

    def _names(self, content: dict[str, Any]) -> list[str]:
        given = content.get("image")
        names = [] if given is None else given if isinstance(given, list) else [given]
        if not all(isinstance(name, str) and name for name in names):
            raise Unfit("row_malformed", f'"image" is {str(given)[:60]!r}; expected a path or a list of paths')
        if not names and not self.text_rows:
            raise Unfit("media_missing", "the row names no picture, and source.reader.text_rows is false")
        return names


def _id(content: dict[str, Any]) -> str:
    given = content["id"]
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise Unfit("row_malformed", f'"id" is {str(given)[:60]!r}; expected text or a whole number')
    return str(given)


def _single(turns: Any, names: list[str]) -> None:
    """Raises: Unfit unless the row is one question about one picture and its answer."""
    if isinstance(turns, list) and len(turns) != 2:
        raise Unfit("turns_bad", f"{len(turns)} turns; a caption is the answer to one question")
    if len(names) > 1:
        raise Unfit("placeholder_mismatch", f"{len(names)} pictures for one caption")


def _first(messages: list[Message], pictures: int) -> list[Message]:
    """Up to the first answer. Raises: Unfit if a later question shows a picture, which would be lost."""
    end = next(number for number, message in enumerate(messages) if message.role == "assistant") + 1
    shown = sum(part.type == "image" for message in messages[:end] for part in message.content)
    if shown != pictures:
        raise Unfit("placeholder_mismatch", f"the first question shows {shown} of the row's {pictures} pictures")
    return messages[:end]


def _text(message: Message) -> str:
    return "".join(part.text for part in message.content if isinstance(part, TextPart))
