"""The configuration of `data_prep.prepare` as typed records, checked before anything is fetched or written."""

from __future__ import annotations

import json
import pkgutil
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter, ValidationError

from data_prep.budget import PERCENT
from data_prep.media import PictureRules
from data_prep.rows import Converter
from vlm.contracts.errors import ConfigError, Problem
from vlm.contracts.ranges import PositiveInt
from vlm.contracts.settings import STRICT, Paths

READERS = "data_prep.sets."  # the only place that a reader may come from
Flag = Literal["noncommercial", "share_alike", "model_output", "no_media_rights", "credentialed"]
Percent = Annotated[float, Field(ge=0, le=100)]


@dataclass(frozen=True)
class Package:
    """A published package. version: None = what the client offers.   sha256: of that version's file, None = not pinned.

    bytes: size of the download.   license: of what is read out of it.
    """

    __pydantic_config__: ClassVar = STRICT
    client: Literal["pip", "npm", "apt"]
    name: str
    version: str | None
    sha256: str | None
    bytes: PositiveInt
    license: str


@dataclass(frozen=True)
class Holdout:
    """Every `every`-th picture, by a hash of its pixels, goes to `split`; the others to the first split."""

    __pydantic_config__: ClassVar = STRICT
    split: str
    every: PositiveInt


@dataclass(frozen=True)
class SourceSettings:
    """One file of conf/source. expected: split -> source rows by the set's page, None where only the data can tell."""

    __pydantic_config__: ClassVar = STRICT
    name: Annotated[str, Field(pattern="^[a-z0-9_-]+$")]
    reader: dict[str, Any]
    packages: dict[str, Package]
    any_part: bool
    licenses: dict[str, list[Flag]]
    expected: dict[str, PositiveInt | None]
    holdout: Holdout | None
    remove_duplicates: bool
    pictures: PictureRules
    max_words: PositiveInt
    budget: dict[str, Percent | None]
    shard_mb: PositiveInt


@dataclass(frozen=True)
class PrepareSettings:
    """The whole of conf/prepare.yaml."""

    __pydantic_config__: ClassVar = STRICT
    source: SourceSettings
    folder: Annotated[str | None, Field(alias="from")]
    out: str
    parts: list[str] | None
    limit: PositiveInt | None
    dry_run: bool
    paths: Paths


def check(config: dict[Any, Any]) -> tuple[PrepareSettings, Converter]:
    """The plain configuration as typed settings and the set's converter.

    Raises: ConfigError with every problem: unknown or missing keys, types, ranges, names that do not exist.
    """
    settings = _validate(PrepareSettings, config, "")
    source = settings.source
    problems = [
        Problem(f"source.budget.{reason}", f"no such reason; known: {', '.join(sorted(PERCENT))}")
        for reason in source.budget
        if reason not in PERCENT
    ]
    if source.holdout and source.holdout.split not in source.expected:
        problems.append(Problem("source.holdout.split", f"must be one of {', '.join(source.expected)}"))
    for part in settings.parts or ():
        if part not in source.packages:
            known = ", ".join(source.packages) or "none, its files are given with from=DIR"
            problems.append(Problem("parts", f"{source.name} has no part '{part}'; parts: {known}"))
    if settings.parts == []:
        problems.append(Problem("parts", "is empty; name at least one part, or leave it out for all"))
    if problems:
        raise ConfigError(problems)
    return settings, _reader(source.reader)


def _reader(node: dict[str, Any]) -> Converter:
    target = str(node.get("_target_", ""))
    if not target.startswith(READERS):
        raise ConfigError([Problem("source.reader._target_", f"'{target}' is not below {READERS.rstrip('.')}")])
    try:
        factory = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError([Problem("source.reader._target_", f"'{target}' cannot be imported: {error}")]) from error
    return _validate(factory, {name: value for name, value in node.items() if name != "_target_"}, "source.reader")


def _validate(kind: Any, node: dict[Any, Any], at: str) -> Any:
    try:
        return TypeAdapter(kind).validate_json(json.dumps(node))  # strict mode builds records from JSON only
    except ValidationError as error:
        problems = [
            Problem(".".join([*filter(None, [at]), *map(str, fault["loc"])]) or "source", fault["msg"])
            for fault in error.errors()
        ]
        raise ConfigError(problems) from error
