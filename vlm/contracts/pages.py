"""The settings of commands that make a page to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le, Len

from vlm.contracts.ranges import PositiveInt, ViewSide
from vlm.contracts.settings import STRICT, Paths

Shown = Annotated[int, Ge(1), Le(24)]  # pictures of a page: more of them nobody looks at, and the file grows with each
Repeats = Annotated[int, Ge(3), Le(1000)]  # fewer than three have no spread


@dataclass(frozen=True)
class TokensConfig:
    """The whole of conf/tokens.yaml."""

    __pydantic_config__: ClassVar = STRICT
    model: str
    images: str | list[str] | None
    pictures: Shown
    budgets: Annotated[list[PositiveInt], Len(1, 6)] | None
    size: ViewSide | None
    repeats: Repeats
    device: Literal["cpu", "cuda"] | None
    out: str | None
    paths: Paths
