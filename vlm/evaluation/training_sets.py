"""The prepared splits that a model was trained on, as its run folder and those of the runs before it tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from vlm.contracts.errors import InputError
from vlm.contracts.parts import ADAPTER
from vlm.data.shards import ShardSet

RECORD, CONFIG = "data.json", "config.yaml"
Rows = tuple[int, int]


@dataclass(frozen=True)
class TrainingSets:
    """splits: folder and rows (first, end), None = all, of every split that can be looked into.

    unknown: sentences about what else training may have read; with one of them no picture is known to be new.
    """

    splits: tuple[tuple[Path, Rows | None], ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class _Read:
    """A set in data.json: a prepared one, or the address of a stream."""

    dir: str | None = None
    manifest_sha256: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class _Record:
    """data.json, as far as it matters here."""

    sets: dict[str, dict[str, _Read]]


@dataclass(frozen=True)
class _Use:
    rows: Rows | None = None


@dataclass(frozen=True)
class _Data:
    train: dict[str, _Use | None]


@dataclass(frozen=True)
class _Config:
    """config.yaml, as far as it matters here."""

    data: _Data
    init_from: str | None = None
    weights: dict[str, str | None] = field(default_factory=dict)
    llm: dict[str, Any] | None = None
    text: dict[str, Any] | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """What `init_from` gives, unless `weights` does."""
        if self.text is not None:
            return ("encoder", "text", "joint")
        stacked = (self.llm or {}).get("adapters")
        return ("encoder", "connector", "llm", "fusion", *([ADAPTER] if stacked else []))

    @property
    def sources(self) -> list[str]:
        """Runs and models whose weights the run began with."""
        given = dict.fromkeys(self.parts, self.init_from) | {part: name for part, name in self.weights.items() if name}
        return list(dict.fromkeys(name for name in given.values() if name))


def training_splits(model: Path, data: Path | None = None) -> TrainingSets:
    """What a model was trained on, the earlier phases that `init_from` and `weights` name included.

    model: a run folder, or the model/ in it.   data: where prepared sets lie now, if not where the run found them.
    A set counts only if its manifest is still the one that the run read. Of the rows, some may not have had their turn:
    a run can stop before an epoch ends. Texts that a language model was pretrained on have no pictures and do not count.
    """
    splits: dict[tuple[Path, Rows | None], None] = {}
    unknown: list[str] = []
    waiting, known = [model], set()
    while waiting:
        folder = _run_folder(waiting.pop(0))
        if folder.resolve() in known:
            continue
        known.add(folder.resolve())
        try:
            record, config = _read_record(folder), _read_config(folder)
        except InputError as error:
            unknown.append(str(error))
            continue
        waiting += [Path(source) for source in config.sources]
        for found in _sets(folder, record, config, data):
            if isinstance(found, str):
                unknown.append(found)
            else:
                splits[found] = None
    return TrainingSets(tuple(splits), tuple(unknown))


def _sets(
    folder: Path, record: _Record, config: _Config, data: Path | None
) -> Iterator[tuple[Path, Rows | None] | str]:
    """Folder and rows of each training set, or why nothing is known about it."""
    for name, read in record.sets.get("train", {}).items():
        use = config.data.train.get(name) or _Use()
        if read.dir is None:
            yield f"{folder}: {name} was read as a stream from {read.address}; what it held is not known any more"
            continue
        places = [Path(read.dir), *([data / Path(*Path(read.dir).parts[-2:])] if data else [])]
        faults = []
        for place in places:
            if (fault := _fault(place, read.manifest_sha256)) is None:
                yield place, use.rows
                break
            faults.append(fault)
        else:
            yield f"{folder}: what {name} held is not known: {'; '.join(faults)}"


def _fault(place: Path, manifest_sha256: str | None) -> str | None:
    """Why a folder is not the split that was read; None if it is."""
    if not (place / "manifest.json").is_file():
        return f"{place} is not there any more"
    try:
        split = ShardSet(place)
    except InputError as error:
        return str(error)
    split.close()
    return None if split.manifest_sha256 == manifest_sha256 else f"{place} was prepared anew since"


def _run_folder(given: Path) -> Path:
    """The run of a saved model that lies in it, else the folder itself."""
    inside = given.resolve().name == "model" and not (given / RECORD).is_file()
    return given.resolve().parent if inside and (given.resolve().parent / RECORD).is_file() else given


def _read_record(folder: Path) -> _Record:
    """Raises: InputError if it is not there or not of its form."""
    file = folder / RECORD
    if not file.is_file():
        what = "is a saved model without its run folder" if folder.is_dir() else "is not there any more"
        raise InputError(f"{folder} {what}, so what it was trained on is not known")
    try:
        return _record().validate_python(json.loads(file.read_bytes()))
    except ValueError as error:  # of JSON, or of its form
        raise InputError(f"{file} does not say what the run read: {_first(error)}") from error


def _read_config(folder: Path) -> _Config:
    """Raises: InputError if it is not there or not of its form."""
    file = folder / CONFIG
    if not file.is_file():
        raise InputError(f"{file} is missing, so which rows the run read and what it began with is not known")
    try:
        return _config().validate_python(yaml.safe_load(file.read_bytes()))
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{file} does not say which rows the run read: {_first(error)}") from error


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}"
    return str(error).splitlines()[0]


@cache
def _record() -> TypeAdapter[_Record]:
    return TypeAdapter(_Record)


@cache
def _config() -> TypeAdapter[_Config]:
    return TypeAdapter(_Config)
