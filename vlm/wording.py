"""Mistakes put into words: what a value must be, what was meant, and which keys there are."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Len, Lt

if TYPE_CHECKING:
    from pydantic import TypeAdapter

PLAIN = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def nearest(word: str, options: Iterable[str]) -> list[str]:
    """The option that was probably meant, or nothing."""
    return difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest option, or nothing if none is near."""
    return "".join(f"; did you mean {near!r}?" for near in nearest(word, options))


def unknown(word: str, options: Iterable[str]) -> str:
    """The message for a key that is not among the options."""
    options = list(options)
    return f"unknown key{did_you_mean(word, options) or ';'} keys here: {', '.join(options) or 'none'}"


def no_choice(group: str, name: str, options: Iterable[str]) -> str:
    """The message for a choice that a group does not have."""
    options = list(options)
    return f"there is no {group} {name!r}{did_you_mean(name, options) or ';'} choices: {', '.join(options)}"


def validate(annotation: Any, value: Any, key: str = "") -> list[tuple[str, str]]:
    """Every way in which `value` does not fit `annotation`, as (key, message).

    value: plain containers as YAML gives them; nothing is converted, except that whole numbers pass as numbers.
    """
    from pydantic import ValidationError

    text = json.dumps(value)
    try:
        _adapter(annotation).validate_json(text, strict=True)
    except ValidationError as error:
        found: dict[str, str] = {}
        for item in error.errors(include_url=False):
            where, message = _phrase(annotation, json.loads(text), key, item["type"], list(item["loc"]))
            found.setdefault(where, message)  # a union reports once for each member
        return list(found.items())
    return []


def typed(annotation: Any, value: Any) -> Any:
    """A checked plain value as the typed record that it describes."""
    return _adapter(annotation).validate_json(json.dumps(value), strict=True)


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # 0.1 s that a help page does not need

    return TypeAdapter(annotation)


def _phrase(annotation: Any, value: Any, key: str, kind: str, location: list[Any]) -> tuple[str, str]:
    last = location.pop() if kind in ("missing", "unexpected_keyword_argument") else None
    for step in location:  # a step that the value does not have is pydantic's name for a member of a union
        if (isinstance(value, dict) and step in value) or (isinstance(value, list) and isinstance(step, int)):
            annotation, value = _item_type(annotation, step), value[step]
            key = f"{key}[{step}]" if isinstance(step, int) else join(key, step)
    if kind == "missing":
        return join(key, last), f"missing; it must be {expected(_item_type(annotation, last))}"
    if kind == "unexpected_keyword_argument":
        return join(key, last), unknown(str(last), _keys(annotation))
    return key, f"{shown(value)} is given, but it must be {expected(annotation)}"


def join(*steps: Any) -> str:
    return ".".join(str(step) for step in steps if step != "")


def shown(value: Any) -> str:
    """A value as it would be written in YAML, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def expected(annotation: Any) -> str:
    """A type in words: "a whole number > 0", "one of answers, all"."""
    if annotation in PLAIN:
        return PLAIN[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _limited(expected(arguments[0]), arguments[1:])
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(str(choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(expected(member) for member in arguments)
    if dataclasses.is_dataclass(annotation):
        return f"a mapping with the keys {', '.join(_keys(annotation))}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping from names to values, each {expected(arguments[1])}"
    if isinstance(origin, type) and issubclass(origin, Sequence | set):
        return f"a list, each item {expected(arguments[0])}" if arguments else "a list"
    return "anything" if annotation is Any else getattr(annotation, "__name__", str(annotation))


def _limited(words: str, constraints: Iterable[Any]) -> str:
    """ "a number" with its limits: "a number >= 0 and < 1", "a list of length 2, each item text"."""
    signs: list[str] = []
    for limit in [part for entry in constraints for part in getattr(entry, "metadata", [entry])]:
        for kind, name, sign in ((Gt, "gt", ">"), (Ge, "ge", ">="), (Lt, "lt", "<"), (Le, "le", "<=")):
            if isinstance(limit, kind):
                signs.append(f"{sign} {getattr(limit, name)}")
        if isinstance(limit, Len):
            low, high = limit.min_length, limit.max_length
            length = f"{low} or more" if high is None else f"{low}" if low == high else f"{low} to {high}"
            words = words.replace("a list", f"a list of length {length}", 1)
    return f"{words} {' and '.join(signs)}" if signs else words


def members(annotation: Any) -> list[Any]:
    """The members of a type without Annotated and unions."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return members(arguments[0])
    if origin in (Union, types.UnionType):
        return [bare for member in arguments for bare in members(member)]
    return [annotation]


def _item_type(annotation: Any, step: Any) -> Any:
    """The type of one key or item of a container type; Any where the type does not say."""
    for member in members(annotation):
        if dataclasses.is_dataclass(member):
            return field_types(member).get(str(step), Any)
        if arguments := get_args(member):
            return arguments[-1] if isinstance(step, str) else arguments[0]
    return Any


def _keys(annotation: Any) -> list[str]:
    return [key for member in members(annotation) if dataclasses.is_dataclass(member) for key in field_types(member)]


def field_types(record: Any) -> dict[str, Any]:
    """Key -> type of a dataclass's fields; a key may be another word than the field's name (pydantic's alias)."""
    hints = get_type_hints(record, include_extras=True)
    found: dict[str, Any] = {}
    for entry in dataclasses.fields(record):
        notes = get_args(hints[entry.name])[1:] if get_origin(hints[entry.name]) is Annotated else ()
        alias = next((note.alias for note in notes if getattr(note, "alias", None)), entry.name)
        found[alias] = hints[entry.name]
    return found
