"""Types and mistakes in words that say what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pytest
from annotated_types import Len
from pydantic import Field

from vlm.contracts.ranges import Fraction, NonNegativeInt, PositiveFloat, PositiveInt
from vlm.contracts.settings import STRICT
from vlm.wording import expected, typed, validate


@dataclass(frozen=True)
class Inner:
    __pydantic_config__: ClassVar = STRICT
    size: PositiveInt
    near: Annotated[str | None, Field(alias="from")] = None


@dataclass(frozen=True)
class Outer:
    __pydantic_config__: ClassVar = STRICT
    inner: Inner
    many: dict[str, Inner | None]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (PositiveInt, "a whole number > 0"),
        (Fraction, "a number >= 0 and <= 1"),
        (PositiveFloat | None, "a number > 0 or null"),
        (Literal["a", "b"], "one of a, b"),
        (Literal["a"], "a"),
        (Annotated[list[float], Len(3, 3)], "a list of length 3, each item a number"),
        (Annotated[list[NonNegativeInt], Len(1)], "a list of length 1 or more, each item a whole number >= 0"),
        (tuple[str, ...], "a list, each item text"),
        (Mapping[str, bool], "a mapping from names to values, each true or false"),
        (Inner, "a mapping with the keys size, from"),
        (Annotated[float, Field(ge=0, le=100)], "a number >= 0 and <= 100"),
    ],
)
def test_a_type_is_told_in_words(annotation: Any, words: str):
    assert expected(annotation) == words


@pytest.mark.parametrize(
    ("annotation", "value", "key", "words"),
    [
        (PositiveInt, True, "", "true is given, but it must be a whole number > 0"),
        (str | list[int], {"a": 1}, "", '{"a": 1} is given, but it must be text or a list, each item a whole number'),
        (list[PositiveInt], [1, 0], "[1]", "0 is given"),
        (Outer, {"inner": {}, "many": {}}, "inner.size", "missing; it must be a whole number > 0"),
        (
            Outer,
            {"inner": {"size": 1, "sice": 1}, "many": {}},
            "inner.sice",
            "did you mean 'size'? keys here: size, from",
        ),
        (Outer, {"inner": {"size": 1, "from": 3}, "many": {}}, "inner.from", "3 is given, but it must be text or null"),
        (Outer, {"inner": {"size": 1}, "many": {"x": {"size": "1"}}}, "many.x.size", '"1" is given'),
    ],
)
def test_a_wrong_value_is_found_where_it_stands(annotation: Any, value: Any, key: str, words: str):
    ((where, message),) = validate(annotation, value)
    assert where == key
    assert words in message


def test_whole_numbers_pass_as_numbers_and_lists_as_tuples():
    assert validate(dict[str, float], {"rate": 1}) == []
    assert validate(tuple[int, ...], [1, 2]) == []


def test_a_checked_value_becomes_the_record_that_the_code_reads():
    made = typed(Outer, {"inner": {"size": 1, "from": "here"}, "many": {"a": None}})
    assert made == Outer(Inner(1, "here"), {"a": None})
