"""A user's own preference pairs: one JSON object a line, with or without pictures, split by picture or by text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from data_prep.chats import PLACEHOLDER, ROLES, asked, chat
from data_prep.pairs import check_answers
from data_prep.reading.own_rows import only_file, own_pictures, own_rows
from data_prep.reading.places import Pictures
from data_prep.reading.tables import count_lines
from data_prep.rows import Inputs, Row, Skip, Unfit, reply
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Message, Origin

CALLED = "pairs.jsonl"
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
        return count_lines(only_file(inputs.only(), CALLED, FORM))

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for no or several files, one of another form, an unknown role, or a path that leaves."""
        return own_rows(inputs, CALLED, FORM, _fault, self._row)

    def _row(self, pictures: Pictures, where: str, origin: Origin, content: dict[str, Any]) -> Row:
        chosen, rejected = (_answer(name, content[name]) for name in ("chosen", "rejected"))
        check_answers(chosen, rejected)
        found = own_pictures(content, pictures, where)
        messages, repaired = _prompt(content, chosen, len(found), where)
        return Row(
            None, origin, found, self.license,
            messages=messages, chosen=[reply(chosen)], rejected=[reply(rejected)], repaired=tuple(repaired),
        )  # fmt: skip


def _fault(content: dict[str, Any]) -> str:
    if ("prompt" in content) == ("messages" in content):
        return 'needs one of "prompt" and "messages"'
    return ", ".join(f'has no "{name}"' for name in ("chosen", "rejected") if name not in content)


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
