"""A user's own preference pairs: one JSON object a line, with or without pictures, split by picture or by text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from data_prep.chats import PLACEHOLDER, ROLES, asked, chat
from data_prep.pairs import check_answers
from data_prep.reading.places import Pictures
from data_prep.reading.tables import count_lines, json_rows
from data_prep.rows import Inputs, Picture, Row, Skip, Unfit, reply
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Message, Origin

FORM = (
    '{"prompt": "…", "chosen": "…", "rejected": "…", "images": ["path"]}, or "messages": [{"role": "user", '
    '"content": "…"}] in place of "prompt"; <image> in a user\'s text stands for the next picture'
)


@dataclass(frozen=True)
class PreferenceJsonl:
    """Rows of the one .jsonl in the folder. license: what the user says of texts and pictures.

    An answer is a text, or a list of the one assistant turn that holds it.
    """

    __pydantic_config__: ClassVar = STRICT
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return count_lines(_only_file(inputs.only()))

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for no or several files, one of another form, an unknown role, or a path that leaves."""
        file = inputs.note(_only_file(inputs.only()))
        pictures = Pictures(inputs, ["."], "Paths count from the folder that is given with from=")
        first = True
        for number, content in json_rows(file, FORM):
            origin = Origin(file.name, number, f"line {number + 1}")
            try:
                if isinstance(content, Unfit):
                    raise content
                _check_keys(content, f"{file} line {number + 1}", first)
                first = False
                origin = Origin(file.name, number, str(content.get("id", origin.id)))
                yield self._row(pictures, f"{file} line {number + 1}", origin, content)
            except Unfit as fault:
                yield Skip(None, origin, fault.reason, fault.detail)

    def _row(self, pictures: Pictures, where: str, origin: Origin, content: dict[str, Any]) -> Row:
        names = _names(content)
        chosen, rejected = (_answer(name, content[name]) for name in ("chosen", "rejected"))
        check_answers(chosen, rejected)
        messages, repaired = _prompt(content, chosen, len(names), where)
        found = tuple(Picture(pictures.at(name, where), name) for name in names)
        return Row(
            None, origin, found, self.license,
            messages=messages, chosen=[reply(chosen)], rejected=[reply(rejected)], repaired=tuple(repaired),
        )  # fmt: skip


def _only_file(folder: Path) -> Path:
    files = sorted(folder.glob("*.jsonl"))
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        raise InputError(
            f"{folder} must hold exactly one file of pairs (pairs.jsonl), found: {found}; a line is {FORM}"
        )
    return files[0]


def _check_keys(content: Any, where: str, first: bool) -> None:
    """A first line without its keys means a file of another form; a later one is a fault of its own."""
    if not isinstance(content, dict):
        fault = "is no object"
    elif ("prompt" in content) == ("messages" in content):
        fault = 'needs one of "prompt" and "messages"'
    else:
        fault = ", ".join(f'has no "{name}"' for name in ("chosen", "rejected") if name not in content)
    if fault and first:
        raise InputError(f"{where} {fault}; each line is {FORM}")
    if fault:
        raise Unfit("row_malformed", f"the line {fault}")


def _names(content: dict[str, Any]) -> list[str]:
    """Paths of the pictures."""
    given = content.get("images", content.get("image"))
    names = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise Unfit("row_malformed", f'"images" is {str(given)[:60]!r}; give a list of paths')
    return names


def _answer(name: str, given: Any) -> str:
    turn = given[0] if isinstance(given, list) and len(given) == 1 else given
    if isinstance(turn, dict) and ROLES.get(str(turn.get("role", turn.get("from")))) == "assistant":
        turn = turn.get("content", turn.get("value"))
    if not isinstance(turn, str):
        raise Unfit("row_malformed", f'"{name}" is {str(given)[:60]!r}; give the text of one answer')
    if PLACEHOLDER in turn:
        raise Unfit("placeholder_mismatch", f"{PLACEHOLDER} stands in the {name} answer")
    return turn


def _prompt(content: dict[str, Any], chosen: str, pictures: int, where: str) -> tuple[list[Message], list[str]]:
    """The turns before the answer, ending in a question."""
    if "messages" in content:
        turns = content["messages"]
        if not isinstance(turns, list):
            raise Unfit("row_malformed", f'"messages" is {str(turns)[:60]!r}; give a list of turns')
        messages, repaired = chat([*turns, {"role": "assistant", "content": chosen}], pictures, where)
        return messages[:-1], repaired
    if not isinstance(content["prompt"], str):
        raise Unfit("row_malformed", f'"prompt" is {str(content["prompt"])[:60]!r}; give a text, or use "messages"')
    message, repaired = asked(content["prompt"], pictures)
    return [message], repaired
