"""A user's own conversations: one JSON object a line, with or without pictures, split by picture or by text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from data_prep.chats import chat
from data_prep.reading.own_rows import only_file, own_pictures, own_rows
from data_prep.reading.places import Pictures
from data_prep.reading.tables import count_lines
from data_prep.rows import Inputs, Row, Skip, Unfit
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

CALLED = "chats.jsonl"
FORM = (
    '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], '
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
        return count_lines(only_file(inputs.only(), CALLED, FORM))

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for no or several files, one of another form, an unknown role, or a path that leaves."""
        return own_rows(inputs, CALLED, FORM, _fault, self._row)

    def _row(self, pictures: Pictures, where: str, origin: Origin, content: dict[str, Any]) -> Row:
        found = own_pictures(content, pictures, where)
        messages, repaired = chat(_turns(content), len(found), where)
        independent = content.get("independent", False)
        if not isinstance(independent, bool):
            raise Unfit("row_malformed", f'"independent" is {independent!r}; give true or false')
        meta = {"independent": True} if independent else None
        return Row(None, origin, found, self.license, messages=messages, meta=meta, repaired=tuple(repaired))


def _turns(content: dict[str, Any]) -> Any:
    return content.get("messages", content.get("conversations"))


def _fault(content: dict[str, Any]) -> str:
    return "" if isinstance(_turns(content), list) else "is no object with a list of messages or conversations"
