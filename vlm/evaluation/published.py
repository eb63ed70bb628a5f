"""Figures that others have published, and what each of them shows against what needs no model (published.yaml)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import ClassVar

import yaml
from pydantic import TypeAdapter, ValidationError

from vlm.contracts.errors import InputError
from vlm.contracts.ranges import PositiveInt
from vlm.contracts.settings import STRICT
from vlm.evaluation.intervals import wilson

FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Chance:
    """The best answer that needs no model. value: in the figure's own unit."""

    __pydantic_config__: ClassVar = STRICT
    name: str
    value: float


@dataclass(frozen=True)
class Published:
    """One published figure.

    stage: of training, or mode of use.   metric: as it was published.   measures: names of this project's measures
    that are the same quantity.   value: 0..top.   top: its greatest value, 1 for a share.   binary: a share of
    questions that are right or wrong, so that the number of questions alone gives an interval.
    questions: None where it is not published.   split: this project's result of the same questions.   whole_of: a
    benchmark of this project that holds these questions and no others.   subset: which part of its own benchmark that
    is, in words; None for the whole of it.   decoding: None where it is not published.   unknown: what a comparison
    would need and is not published.   reading: what the figure shows.
    """

    __pydantic_config__: ClassVar = STRICT
    benchmark: str
    system: str
    stage: str
    metric: str
    measures: list[str]
    value: float
    reading: str
    source: str
    top: float = 1.0
    binary: bool = False
    questions: PositiveInt | None = None
    split: str = "all"
    whole_of: str | None = None
    subset: str | None = None
    decoding: str | None = None
    unknown: list[str] = field(default_factory=list)
    chance: Chance | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson 95 %, of a share of right answers among a known number of questions."""
        if not self.binary or self.questions is None:
            return None
        return wilson(self.value * self.questions, self.questions)


@dataclass(frozen=True)
class Silent:
    """A system without any published figure."""

    __pydantic_config__: ClassVar = STRICT
    system: str
    reading: str
    source: str


@dataclass(frozen=True)
class Figures:
    """The whole of the file."""

    __pydantic_config__: ClassVar = STRICT
    figures: list[Published]
    silent: list[Silent]


def published(benchmark: str, file: Path = FILE) -> list[Published]:
    """The published figures for a benchmark, in the order of the file; [] where there are none.

    Raises: InputError naming the key for a file that is not of the form above.
    """
    own = [figure for figure in _read(file).figures if figure.benchmark == benchmark]
    others = [figure for figure in _read(file).figures if figure.whole_of == benchmark]
    return own + [replace(figure, benchmark=benchmark, split="all", subset=None) for figure in others]


def silent(file: Path = FILE) -> list[Silent]:
    """The systems that have published no figure. Raises: InputError, as `published`."""
    return list(_read(file).silent)


@cache
def _read(file: Path) -> Figures:
    try:
        with file.open("rb") as stream:
            content = yaml.load(stream, yaml.CSafeLoader)
        # As JSON, because strict reading takes records from JSON only.
        found = TypeAdapter(Figures).validate_json(json.dumps(content))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); reinstall the package") from error
    except (yaml.YAMLError, TypeError) as error:
        raise InputError(f"{file}: this is no YAML of plain values: {error}; mend the line") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        raise InputError(f"{file}: {key}: {first['msg']}; see the fields of Published in published.py") from error
    told: set[tuple[str, str, str, str]] = set()
    for number, figure in enumerate(found.figures):
        key = (figure.benchmark, figure.system, figure.stage, figure.metric)
        if key in told:
            raise InputError(f"{file}: figures.{number}: {' / '.join(key)} stands there twice; keep one")
        told.add(key)
        for name, value in (("value", figure.value), ("chance", figure.chance.value if figure.chance else 0.0)):
            if not 0 <= value <= figure.top:
                limits = f"0..{figure.top:g}"
                raise InputError(
                    f"{file}: figures.{number}.{name}: {value} is not within {limits}; mend it, or set top"
                )
    return found
