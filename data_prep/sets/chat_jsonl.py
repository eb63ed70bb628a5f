"""A user's own conversations: one JSON object a line, with or without pictures, split by picture or by text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from data_prep.rows import Inputs, Picture, Row, Skip
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import MediumPart, Message, Origin, TextPart

FORM = (
    'each line is {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}], '
    '"images": ["path"]} or {"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}; '
    "<image> in a user's text stands for the next picture"
)
Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user", "user": "user", "question": "user",
    "gpt": "assistant", "assistant": "assistant", "model": "assistant",
}  # fmt: skip
PLACEHOLDER = "<image>"


class _Unfit(Exception):
    """A row that is skipped, as Skip tells it."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(detail)


@dataclass
class _Turn:
    """parts: text, or None where a picture stands."""

    role: Role
    parts: list[str | None]

    @property
    def pictures(self) -> int:
        return self.parts.count(None)


@dataclass(frozen=True)
class ChatJsonl:
    """Rows of the one .jsonl in the folder. license: what the user says of texts and pictures.

    "independent": true in a row says that its questions are separate ones about the same pictures.
    """

    __pydantic_config__: ClassVar = STRICT
    license: str

    def total(self, inputs: Inputs) -> int | None:
        with _only_file(inputs.only()).open("rb") as stream:
            return sum(1 for _ in stream)

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for no or several files, one of another form, an unknown role, or a path that leaves."""
        folder = inputs.only()
        file = inputs.note(_only_file(folder))
        seen: set[bytes] = set()
        for number, line in _lines(file):
            origin = Origin(file.name, number, f"line {number + 1}")
            try:
                content = _object(file, number, line)
                origin = Origin(file.name, number, str(content.get("id", origin.id)))
                yield self._row(folder, f"{file} line {number + 1}", origin, content, seen)
            except _Unfit as fault:
                yield Skip(None, origin, fault.reason, fault.detail)

    def _row(self, folder: Path, where: str, origin: Origin, content: dict[str, Any], seen: set[bytes]) -> Row:
        names = _names(where, content)
        turns, repaired = _answered(_turns(where, content))
        repaired += _placed(turns, len(names))
        messages = _messages(turns)
        same = hashlib.sha256(repr((messages, names)).encode()).digest()[:16]
        if same in seen:
            raise _Unfit("dup_exact", "this conversation stands in the file before")
        pictures = tuple(Picture(_read(folder / name), name) for name in names)
        seen.add(same)
        independent = content.get("independent", False)
        if not isinstance(independent, bool):
            raise _Unfit("row_malformed", f'"independent" is {independent!r}; give true or false')
        meta = {"independent": True} if independent else None
        return Row(None, origin, pictures, self.license, messages=messages, meta=meta, repaired=tuple(repaired))


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
    raise _Unfit("row_malformed", f"the line {fault}")


def _names(where: str, content: dict[str, Any]) -> list[str]:
    """Paths of the pictures, inside the folder."""
    given = content.get("images", content.get("image"))
    names = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise _Unfit("row_malformed", f'"images" is {str(given)[:60]!r}; give a list of paths')
    for name in names:
        if name.startswith(("http://", "https://")):
            raise InputError(f"{where}: {name[:60]} is an address; fetch the picture and give its path in the folder")
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{where}: {name} leaves the folder; give paths inside it")
    return names


def _turns(where: str, content: dict[str, Any]) -> list[_Turn]:
    """The turns in order: perhaps a system turn, then questions and answers by turns."""
    turns = []
    for entry in content.get("messages", content.get("conversations")) or []:
        if not isinstance(entry, dict):
            raise _Unfit("row_malformed", f"a message is {str(entry)[:60]!r}; {FORM}")
        role, text = entry.get("role", entry.get("from")), entry.get("content", entry.get("value"))
        if role not in ROLES:
            raise InputError(f"{where}: role {role!r} is unknown; known: {', '.join(ROLES)}")
        turns.append(_Turn(ROLES[role], _parts(text)))
        if turns[-1].role != "user" and turns[-1].pictures:
            raise _Unfit("placeholder_mismatch", f"{PLACEHOLDER} stands in a turn of the {turns[-1].role}")
    asked = turns[1:] if turns and turns[0].role == "system" else turns
    wanted = ["user", "assistant"] * (len(asked) // 2)
    if not asked or [turn.role for turn in asked] != wanted:
        order = ", ".join(turn.role for turn in turns)
        raise _Unfit("turns_bad", f"turns must alternate from a question to an answer, found: {order or 'none'}")
    return turns


def _parts(content: Any) -> list[str | None]:
    """Text with placeholders, or a list of {"type": "text", "text": …} and {"type": "image"}."""
    if isinstance(content, str):
        texts = content.split(PLACEHOLDER)
        for number in range(1, len(texts)):  # one line end beside a placeholder belongs to it
            if texts[number].startswith("\n"):
                texts[number] = texts[number][1:]
            else:
                texts[number - 1] = texts[number - 1].removesuffix("\n")
        return [part for text in texts for part in (None, text)][1:]
    parts: list[str | None] = []
    for entry in content if isinstance(content, list) else [content]:
        kind = entry.get("type") if isinstance(entry, dict) else None
        text = entry.get("text") if kind == "text" else None
        if kind != "image" and not isinstance(text, str):
            raise _Unfit("row_malformed", f"a message holds {str(entry)[:60]!r}; give text")
        parts.append(text)
    return parts


def _answered(turns: Sequence[_Turn]) -> tuple[list[_Turn], list[str]]:
    """Without questions whose answer is empty; their pictures go to the next question."""
    start = [turn for turn in turns if turn.role == "system"]
    kept, repaired, waiting = list(start), [], 0
    for question, answer in zip(turns[len(start) :: 2], turns[len(start) + 1 :: 2], strict=True):
        if not "".join(part or "" for part in answer.parts).strip():
            waiting += question.pictures
            repaired.append("answer_empty")
        else:
            kept += [_Turn("user", [*[None] * waiting, *question.parts]), answer]
            waiting = 0
    if len(kept) == len(start):
        raise _Unfit("text_empty", "no answer has text")
    if waiting:
        raise _Unfit("text_empty", "the last answer is empty and its question shows a picture")
    return kept, repaired


def _placed(turns: Sequence[_Turn], pictures: int) -> list[str]:
    """Makes as many places as there are pictures, where no turn has any."""
    places = sum(turn.pictures for turn in turns)
    if places and not pictures:
        raise _Unfit("media_missing", f"{places} {PLACEHOLDER}, but no picture is named")
    if places == pictures:
        return []
    if places:
        raise _Unfit("placeholder_mismatch", f"{places} {PLACEHOLDER} for {pictures} pictures")
    first = next(turn for turn in turns if turn.role == "user")
    first.parts[:0] = [None] * pictures
    return ["placeholder_added"]


def _messages(turns: Sequence[_Turn]) -> list[Message]:
    numbers = iter(range(sum(turn.pictures for turn in turns)))
    return [
        Message(
            turn.role,
            [
                MediumPart("image", next(numbers)) if part is None else TextPart("text", part)
                for part in turn.parts
                if part is None or part
            ],
        )
        for turn in turns
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a name that no file can have is an error of either kind
        raise _Unfit("media_missing", f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
