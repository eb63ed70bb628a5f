"""A row of a benchmark's table: its values by name, and what is wrong with it in words that name file and row."""

from __future__ import annotations

import logging
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vlm.contracts.benchmark import Picture
from vlm.contracts.errors import InputError

log = logging.getLogger(__name__)
LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class Row:
    """where: file and row, for messages.   pictures: column -> picture, of the columns that hold one."""

    where: str
    values: Mapping[str, Any]
    pictures: Mapping[str, Picture | None] = field(default_factory=dict)

    @classmethod
    def of(cls, where: str, entry: Any) -> Row:
        """Raises: InputError if the entry is no object with named values."""
        if not isinstance(entry, dict):
            raise InputError(f"{where} is {type(entry).__name__}, not an object; it is not of the published form")
        return cls(where, entry)

    def text(self, key: str, *, empty: bool = False) -> str:
        """empty: whether "" and white space alone are allowed."""
        value = self._value(key, str)
        if not empty and not value.strip():
            raise self.fault(f"{key} is empty")
        return value

    def optional(self, key: str) -> str:
        """A text that may be absent or null, then ""."""
        return "" if self.values.get(key) is None else self.text(key, empty=True)

    def whole(self, key: str) -> int:
        return self._value(key, int)

    def name(self, key: str) -> str:
        """An identifier: a text or a whole number."""
        return str(self._value(key, (str, int)))

    def texts(self, key: str, *, count: int | None = None) -> list[str]:
        """A list of texts. count: how many there must be."""
        value = self._value(key, list)
        strange = next((entry for entry in value if not isinstance(entry, str)), None)
        if strange is not None:
            raise self.fault(f"{key} holds {strange!r:.40}, which is no text")
        if count is not None and len(value) != count:
            raise self.fault(f"{key} holds {len(value)} entries, not {count}")
        return value

    def one_of(self, key: str, allowed: Collection[str]) -> str:
        value = self.text(key)
        if value not in allowed:
            raise self.fault(f"{key} is {value!r:.60}; one of {', '.join(sorted(allowed))} is expected")
        return value

    def picture(self, key: str) -> Picture:
        found = self.pictures.get(key)
        if found is None:
            raise self.fault(f"{key} holds no picture")
        return found

    def fault(self, message: str) -> InputError:
        return InputError(f"{self.where}: {message}; the file is damaged or not of the published form")

    def _value(self, key: str, kind: type | tuple[type, ...]) -> Any:
        if key not in self.values:
            raise self.fault(f"{key} is missing (found {', '.join(map(str, list(self.values)[:12]))})")
        value = self.values[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.fault(f"{key} is {value!r:.60}, which is {type(value).__name__}")
        return value


def letter(row: Row, options: Sequence[str], index: int) -> str:
    """The letter of the right option. Raises: InputError if there is no such option, or none at all, or over 26."""
    if not 2 <= len(options) <= len(LETTERS):
        raise row.fault(f"it has {len(options)} options; 2 to {len(LETTERS)} are expected")
    if not 0 <= index < len(options):
        raise row.fault(f"the right answer is option {index}, counted from 0, of {len(options)}")
    return LETTERS[index]


def letter_of(row: Row, options: Sequence[str], gold: str) -> str:
    """The letter of the option with this text. Raises: InputError if no option has it."""
    if gold not in options:
        raise row.fault(f"the right answer {gold!r:.60} is none of the options {list(options)!r:.200}")
    return letter(row, options, len(options) - 1 - options[::-1].index(gold))  # of equal ones the last, as MVBench does


def letter_named(row: Row, options: Sequence[str], gold: str) -> str:
    """The letter itself. Raises: InputError if it belongs to none of the options."""
    if len(gold) != 1 or gold not in LETTERS:
        raise row.fault(f"the right answer is {gold!r:.40}, not a capital letter")
    return letter(row, options, LETTERS.index(gold))


class Ids:
    """Identifiers that must differ, and questions whose options do not."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._equal: list[str] = []

    def new(self, row: Row, id: str, options: Sequence[str] = ()) -> str:
        """Raises: InputError for one that was there before."""
        if id in self._seen:
            raise row.fault(f"question {id} is there a second time")
        self._seen.add(id)
        if len(set(options)) < len(options):
            self._equal.append(id)
        return id

    def tell(self) -> None:
        """Names the questions with equal options: they are kept as published, but text cannot tell those apart."""
        if self._equal:
            log.warning("%d questions have equal options, for example %s", len(self._equal), self._equal[0])


def check_counts(folder: object, found: Mapping[str, int], expected: Mapping[str, int] | None) -> None:
    """Raises: InputError for numbers of rows that differ from the published ones. expected: None = any."""
    if expected is None:
        return
    stray = set(expected) - set(found)
    if stray:
        raise InputError(f"reader.expected names {', '.join(sorted(stray))}; it may name {', '.join(found)}")
    for name, number in expected.items():
        if found[name] != number:
            raise InputError(
                f"{folder}: {found[name]:,} {name}, but {number:,} are published; this is another version or not the "
                f"whole: get the files again, or take these with reader.expected.{name}={found[name]}"
            )
