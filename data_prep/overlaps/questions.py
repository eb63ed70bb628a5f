"""When two samples ask the same, in whatever spelling."""

from __future__ import annotations

import hashlib
import re

from vlm.data.canonical import Message, Record, TextPart


def questions(record: Record) -> set[str]:
    """What the user asks, turn by turn, normalised; empty for a caption."""
    return {text for turn in record.messages or () if turn.role == "user" and (text := normalised(_words(turn)))}


def choices_digest(record: Record) -> bytes | None:
    """sha256 of the question and its choices in any order; None if the sample is not of that kind."""
    if record.answer is None or not record.answer.choices:
        return None
    asked = sorted(questions(record))
    choices = sorted(map(normalised, record.answer.choices))
    return hashlib.sha256(repr((asked, choices)).encode("utf-8", "backslashreplace")).digest()


def normalised(text: str) -> str:
    """Letters and digits alone, in lower case."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _words(message: Message) -> str:
    return " ".join(part.text for part in message.content if isinstance(part, TextPart))
