"""Where a set's files are, and their rows in order."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.reading.hub import hub, is_hub_id, package_of
from data_prep.reading.packages import fetch
from data_prep.rows import Converter, Inputs
from data_prep.settings import PrepareSettings
from data_prep.work import Numbered
from vlm.contracts.errors import InputError

log = logging.getLogger(__name__)


def check_origin(settings: PrepareSettings) -> None:
    """Raises: InputError if there is nothing to read from, before an earlier output is looked at."""
    source, text = settings.source, settings.folder
    there = f", or from={source.hub.repo} (on the Hugging Face hub)" if source.hub else ""
    if text is None and not source.packages:
        raise InputError(f"{source.name} is in no package registry; give its folder with from=DIR{there}")
    if text is not None and not Path(text).is_dir() and not is_hub_id(text):
        what = "is a file" if Path(text).exists() else "is not there"
        raise InputError(
            f"from={text} {what}; give the folder that holds the published files of {source.name}: from=DIR{there}"
        )


def gather(settings: PrepareSettings) -> Inputs:
    """The user's folder, a hub repository, or the packages; the latter two in the cache.

    Raises: InputError if there is nothing to read.
    """
    source, cache = settings.source, Path(settings.paths.data) / ".cache"
    known: dict[str, Any] = {"scratch": cache / "made" / source.name, "out": Path(settings.out)}
    known |= {"dry": settings.dry_run, "limit": settings.limit}
    if settings.folder is not None:
        folder = _given(settings, settings.folder, cache)
        return Inputs({"from": folder}, package=package_of(folder), **known)
    inputs = Inputs({}, **known)
    left_out = []
    for name in settings.parts or list(source.packages):
        try:
            fetched = fetch(source.packages[name], cache)
        except InputError as error:
            if settings.parts or not source.any_part:
                raise
            left_out.append(f"part {name}: {error}")
            continue
        inputs.places[name] = fetched.path
        inputs.files.append(fetched.source)
    for line in left_out:
        log.warning("left out: %s", line)
    if not inputs.places:
        raise InputError(f"no part of {source.name} can be had here:\n" + "\n".join(left_out))
    return inputs


def _given(settings: PrepareSettings, text: str, cache: Path) -> Path:
    if Path(text).is_dir():
        return Path(text)
    if settings.dry_run:
        raise InputError(f"dry_run=true fetches no data set: give a folder with from=DIR, or try from={text} limit=100")
    try:
        return hub(text, settings.source.hub, cache)
    except InputError as error:
        raise InputError(f"there is no folder {text} here; as a data set of the hub: {error}") from error


def numbered(settings: PrepareSettings, converter: Converter, inputs: Inputs) -> Iterator[Numbered]:
    """Every row with its number, or the first `limit` of each split (of the source, where the engine decides on it)."""
    limit = settings.limit
    splits = list(settings.source.expected)
    counted = splits if settings.source.holdout is None else splits[:1]
    taken = dict.fromkeys(splits, 0)
    for number, row in enumerate(converter.rows(inputs)):
        split = row.split or splits[0]
        if limit is None or taken[split] < limit:
            taken[split] += 1
            yield number, row
        elif min(taken[split] for split in counted) >= limit:
            return
