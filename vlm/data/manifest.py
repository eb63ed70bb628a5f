"""The manifest of a prepared split as its readers need it: found, well formed, or refused with the way out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from vlm.contracts.errors import InputError
from vlm.contracts.ranges import NonNegativeInt, PositiveInt
from vlm.data.canonical import FORMAT


@dataclass(frozen=True)
class ShardEntry:
    """One archive. bytes: its size."""

    name: Annotated[str, Field(pattern=r"^shard-\d+\.tar$")]
    bytes: PositiveInt


@dataclass(frozen=True)
class IndexEntry:
    """index.npy. bytes: its size."""

    bytes: PositiveInt


@dataclass(frozen=True)
class Counts:
    """Rows that a reader finds."""

    samples_out: NonNegativeInt


@dataclass(frozen=True)
class Licenses:
    """SPDX name -> samples."""

    counts: dict[str, NonNegativeInt]


@dataclass(frozen=True)
class Manifest:
    """What every manifest must hold; whatever else it holds is for people."""

    format: Literal["vlm-shards/1"]
    set: str
    split: str
    counts: Counts
    shards: Annotated[list[ShardEntry], Field(min_length=1)]
    index: IndexEntry
    license: Licenses


@cache
def _adapter() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)


def again(directory: Path) -> str:
    """The way out of a damaged split."""
    return f"copy the directory again, or remove it and prepare it with: make data SOURCE={directory.parent.name}"


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of `<set>/<split>/` as plain containers.

    Raises: InputError if there is none (with what there is), or if it is damaged or tells of no samples.
    """
    path = directory / "manifest.json"
    if not path.is_file():
        raise InputError(_absent(directory))
    data = path.read_bytes()
    try:
        _adapter().validate_json(data, strict=True)
        manifest = json.loads(data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise InputError(
            f"{path} is not a manifest of format {FORMAT} ({where}: {fault['msg']}); {again(directory)}"
        ) from error
    if not manifest["counts"]["samples_out"]:
        raise InputError(f"{directory} holds no samples; see its skipped.jsonl, then {again(directory)}")
    return manifest


def _absent(directory: Path) -> str:
    home, split = directory.parent, directory.name
    remedy = f"prepare it with: make data SOURCE={home.name}"
    if inside := sorted(path.parent.name for path in directory.glob("*/manifest.json")):
        return (
            f"{directory} holds the splits {', '.join(inside)}; name one of them, for example {directory / inside[0]}"
        )
    if directory.is_dir():
        return f"{directory} is not finished (no manifest.json); {remedy}"
    if splits := sorted(path.parent.name for path in home.glob("*/manifest.json")):
        return f"{home} has no split '{split}'; splits there: {', '.join(splits)}"
    sets = sorted({path.parents[1].name for path in home.parent.glob("*/*/manifest.json")})
    return f"{directory} does not exist; {remedy}. Sets prepared in {home.parent}: {', '.join(sets) or 'none'}"
