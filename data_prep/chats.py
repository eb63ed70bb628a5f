"""The rules of turns, placeholders and answers: what a source's conversation becomes, or why it cannot become one.

A turn has a role and a text in which `<image>` stands for the next picture; it may stand before, after or in the
middle of the text, or be missing. One line end beside it belongs to it; all other white space stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data_prep.rows import Unfit
from vlm.contracts.errors import InputError
from vlm.data.canonical import MediumPart, Message, TextPart

Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user", "user": "user", "question": "user",
    "gpt": "assistant", "assistant": "assistant", "model": "assistant",
}  # fmt: skip
PLACEHOLDER = "<image>"
FORM = '{"role": "user", "content": "…"} or {"from": "human", "value": "…"}'


@dataclass
class Said:
    """One turn of a source. parts: text, or None where a picture stands; no text is empty."""

    role: Role
    parts: list[str | None]

    @property
    def pictures(self) -> int:
        return self.parts.count(None)

    @property
    def blank(self) -> bool:
        return not any(part is None or part.strip() for part in self.parts)


def chat(
    entries: Any,
    pictures: int,
    where: str,
    *,
    joins: bool = False,
    placeholders: bool = True,
    kind: Literal["image", "video"] = "image",
) -> tuple[list[Message], list[str]]:
    """A source's list of turns as messages that show `pictures` pictures in order, and what was repaired.

    entries: objects {"role", "content"} or {"from", "value"}.   where: file and row, for errors.
    joins: two equal roles in a row become one turn, with a blank line between their texts; else they are a fault.
    placeholders: whether `<image>` means a picture; in a set without pictures it is text.
    kind: what it means; in a set of clips a "video".
    Repairs: placeholder_added, answer_empty (the pair was dropped), turns_joined.
    Raises: Unfit("row_malformed" | "turns_bad" | "text_empty" | "placeholder_mismatch" | "media_missing"),
    InputError for an unknown role.
    """
    turns = [_said(entry, where, placeholders) for entry in _list(entries)]
    repaired = _join(turns) if joins else []
    _check_order(turns)
    turns, dropped = _answered(turns)
    repaired += dropped + _placed(turns, pictures)
    if any(turn.role == "user" and turn.blank for turn in turns):
        raise Unfit("text_empty", "a question has neither text nor picture")
    return _messages(turns, kind), repaired


def asked(text: str, pictures: int) -> tuple[Message, list[str]]:
    """A question with optional placeholders as the user turn that shows `pictures` pictures, and what was repaired.

    Raises: Unfit("text_empty" | "placeholder_mismatch" | "media_missing"); nobody's question is made up.
    """
    turn = Said("user", _split(text))
    if not any(part and part.strip() for part in turn.parts):
        raise Unfit("text_empty", "the question is empty")
    repaired = _placed([turn], pictures)
    return _messages([turn])[0], repaired


def _list(entries: Any) -> list[Any]:
    if not isinstance(entries, list):
        raise Unfit("row_malformed", f"the turns are {str(entries)[:60]!r}; give a list of {FORM}")
    return entries


def _said(entry: Any, where: str, placeholders: bool) -> Said:
    role = entry.get("role", entry.get("from")) if isinstance(entry, dict) else None
    if not isinstance(role, str):
        raise Unfit("row_malformed", f"a turn is {str(entry)[:60]!r}; give {FORM}")
    if role not in ROLES:
        raise InputError(f"{where}: role {role!r} is unknown; known: {', '.join(ROLES)}")
    turn = Said(ROLES[role], _parts(entry.get("content", entry.get("value")), placeholders))
    if turn.role != "user" and turn.pictures:
        raise Unfit("placeholder_mismatch", f"{PLACEHOLDER} stands in a turn of the {turn.role}")
    return turn


def _parts(content: Any, placeholders: bool) -> list[str | None]:
    """Of a text, or of a list of {"type": "text", "text": …} and {"type": "image"}."""
    if isinstance(content, str):
        return _split(content) if placeholders else [content] if content else []
    parts: list[str | None] = []
    for entry in content if isinstance(content, list) else [content]:
        kind = entry.get("type") if isinstance(entry, dict) else None
        text = entry.get("text") if kind == "text" else None
        if kind != "image" and not isinstance(text, str):
            raise Unfit("row_malformed", f"a turn holds {str(entry)[:60]!r}; give text")
        if text != "":
            parts.append(text)
    return parts


def _split(content: str) -> list[str | None]:
    texts = content.split(PLACEHOLDER)
    for number in range(1, len(texts)):
        if texts[number].startswith("\n"):
            texts[number] = texts[number][1:]
        else:
            texts[number - 1] = texts[number - 1].removesuffix("\n")
    return [part for text in texts for part in (None, text) if part != ""][1:]


def _join(turns: list[Said]) -> list[str]:
    """Merges neighbours of one role, in place."""
    kept: list[Said] = []
    for turn in turns:
        if not kept or kept[-1].role != turn.role:
            kept.append(turn)
            continue
        before = kept[-1].parts
        if before and turn.parts and before[-1] is not None and turn.parts[0] is not None:
            before[-1:] = [f"{before[-1]}\n\n{turn.parts[0]}", *turn.parts[1:]]
        else:
            before += turn.parts
    joined = len(turns) - len(kept)
    turns[:] = kept
    return ["turns_joined"] * joined


def _check_order(turns: Sequence[Said]) -> None:
    """Perhaps a system turn, then questions and answers by turns."""
    pairs = turns[1:] if turns and turns[0].role == "system" else turns
    if not pairs or [turn.role for turn in pairs] != ["user", "assistant"] * (len(pairs) // 2):
        order = ", ".join(turn.role for turn in turns[:20])
        raise Unfit("turns_bad", f"turns must alternate from a question to an answer, found: {order or 'none'}")


def _answered(turns: Sequence[Said]) -> tuple[list[Said], list[str]]:
    """Without questions whose answer is empty; their pictures go to the next question."""
    start = [turn for turn in turns if turn.role == "system"]
    kept, repaired, waiting = list(start), [], 0
    for question, answer in zip(turns[len(start) :: 2], turns[len(start) + 1 :: 2], strict=True):
        if answer.blank:
            waiting += question.pictures
            repaired.append("answer_empty")
        else:
            kept += [Said("user", [*[None] * waiting, *question.parts]), answer]
            waiting = 0
    if len(kept) == len(start):
        raise Unfit("text_empty", "no answer has text")
    if waiting:
        raise Unfit("text_empty", "the last answer is empty and its question shows a picture")
    return kept, repaired


def _placed(turns: Sequence[Said], pictures: int) -> list[str]:
    """Makes as many places as there are pictures, where no turn has any."""
    places = sum(turn.pictures for turn in turns)
    if places and not pictures:
        raise Unfit("media_missing", f"{places} {PLACEHOLDER}, but no picture is named")
    if places == pictures:
        return []
    if places:
        raise Unfit("placeholder_mismatch", f"{places} {PLACEHOLDER} for {pictures} pictures")
    first = next(turn for turn in turns if turn.role == "user")
    first.parts[:0] = [None] * pictures
    return ["placeholder_added"]


def _messages(turns: Sequence[Said], kind: Literal["image", "video"] = "image") -> list[Message]:
    numbers = iter(range(sum(turn.pictures for turn in turns)))
    return [
        Message(
            turn.role,
            [MediumPart(kind, next(numbers)) if part is None else TextPart("text", part) for part in turn.parts],
        )
        for turn in turns
    ]
