"""The sets that a run reads, opened and described before anything else is made."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm.contracts.errors import InputError
from vlm.contracts.sample import Sample
from vlm.contracts.settings import DataSettings, LocalitySettings, SetUse
from vlm.data.licences import LicenceRefused, flags_of, refused, union
from vlm.data.order import Mix, Source, quotas
from vlm.data.shards import ShardSet, Stored
from vlm.data.stream import PROMISES, StreamSet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slice:
    """Rows start .. stop-1 of a set. weight, share, augment: as in `SetUse`."""

    name: str
    shards: ShardSet | StreamSet
    start: int
    stop: int
    weight: float = 1.0
    share: float | None = None
    augment: bool = True

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, row: int) -> Sample:
        """Raises: as the set itself."""
        return self.shards[self.start + row]

    def text(self, row: int) -> Sample:
        """The row with empty media where they need not be read. Raises: as the set itself."""
        return self.shards.text(self.start + row)

    def costs(self, row: int) -> Stored | None:
        """What the index says; None if only reading the row would tell."""
        return self.shards.costs(self.start + row)


def open_slices(root: str, uses: Mapping[str, SetUse | None]) -> list[Slice]:
    """Slices of `train`, `validate` or `test`; a set that is null is left out.

    Raises: InputError for a set that is not there (with the command that gets it) or rows that it does not have.
    """
    slices = []
    for name, use in uses.items():
        if use is None:
            continue
        shards = _open(root, name, use)
        start, stop = use.rows or (0, len(shards))
        if not 0 <= start < stop <= len(shards):
            has = "is a stream" if use.stream is not None else f"has {len(shards)} rows"
            raise InputError(
                f"data: {name} {has}, but rows {start} to {stop} are asked for; set "
                f"data.<use>.{name}.rows to a first row and a larger end{' within it' if use.stream is None else ''}"
            )
        slices.append(Slice(name, shards, start, stop, use.weight, use.share, use.augment))
    return slices


def _open(root: str, name: str, use: SetUse) -> ShardSet | StreamSet:
    if use.stream is None and use.split is not None:
        return ShardSet(Path(root) / name / use.split)
    if use.stream is not None and use.split is None and use.rows is not None:
        return StreamSet(name, use.stream, use.rows[1])
    raise InputError(f"data: {name} needs either `split`, or `stream` and `rows`")


@dataclass(frozen=True)
class Opened:
    """All that a run reads. slices: by use, `train`, `validate`, `test`.   record: what data.json says about them."""

    slices: dict[str, list[Slice]]
    record: dict[str, Any]


def open_all(root: str, settings: DataSettings) -> Opened:
    """Raises: InputError as `open_slices`, for two training sets that are two preparations of one, and for training on a
    split that is for scoring; LicenceRefused for what `data.licence_policy` does not allow.
    """
    slices = {
        "train": open_slices(root, settings.train),
        "validate": open_slices(root, settings.validate),
        "test": open_slices(root, settings.test),
    }
    _refuse_doubles(slices["train"])
    if not settings.allow_eval_split:
        _refuse_evaluation(slices["train"])
    opened = [part for parts in slices.values() for part in parts]
    if streams := sorted({part.name for part in opened if isinstance(part.shards, StreamSet)}):
        log.warning("read as a stream: %s; what that cannot promise: %s", ", ".join(streams), PROMISES)
    _tell_faults(slices["train"])
    flags = _flags(opened)
    _refuse_licences(flags, settings.licence_policy)
    return Opened(slices, {**describe(slices), "license_flags": union(flags)})


def _flags(parts: Sequence[Slice]) -> dict[str, dict[str, list[str]]]:
    """set -> flag -> licences that cause it, over all splits of the set that the run reads."""
    found: dict[str, dict[str, list[str]]] = {}
    for part in parts:
        known = found.setdefault(part.name, {})
        for flag, causes in flags_of(None if isinstance(part.shards, StreamSet) else part.shards.manifest).items():
            known[flag] = sorted({*known.get(flag, ()), *causes})
    return found


def _refuse_licences(flags: Mapping[str, Mapping[str, list[str]]], policy: str) -> None:
    if lines := [line for name, found in flags.items() for line in refused(name, found, policy)]:
        listing = "\n".join(f"  {line}" for line in lines)
        raise LicenceRefused(
            f"data.licence_policy: {policy} does not allow what this run would read; nothing was started\n{listing}\n"
            "Leave a set out with data.train.SET=null (validate, test alike), or allow all with data.licence_policy=any"
        )


def _refuse_evaluation(slices: Sequence[Slice]) -> None:
    for part in slices:
        if isinstance(part.shards, ShardSet) and part.shards.manifest.get("evaluation"):
            raise InputError(
                f"data.train.{part.name}.split: {part.shards.split} is for scoring alone; scores of a model that was "
                "trained on it say nothing. Name another split, or allow it with data.allow_eval_split=true"
            )


def _tell_faults(slices: Sequence[Slice]) -> None:
    for part in slices:
        if isinstance(part.shards, ShardSet) and (declared := part.shards.manifest.get("declared_faults")):
            told = ", ".join(f"{count:,} {fault}" for fault, count in declared.items())
            log.warning("%s holds faults put in on purpose: %s in %s samples", part.name, told, f"{len(part.shards):,}")


def _refuse_doubles(slices: Sequence[Slice]) -> None:
    """Two directories of one set and split hold equal keys for rows that may differ; nothing could tell them apart."""
    seen: dict[tuple[str, str], Path] = {}
    for shards in (part.shards for part in slices if isinstance(part.shards, ShardSet)):
        other = seen.setdefault((shards.set, shards.split), shards.directory)
        if other.resolve() != shards.directory.resolve():
            raise InputError(
                f"{other} and {shards.directory} are both {shards.set}/{shards.split}: their rows have the same keys; "
                "train on one of them, or prepare the other under a name of its own"
            )


def training_mix(data: Opened, settings: DataSettings, seed: int) -> Mix:
    """The order of training: its sets by their shares or weights.

    Raises: InputError if the shares leave no place for the other sets, or do not fill all.
    """
    slices = data.slices["train"]
    shares = [part.share for part in slices]
    asked = sum(share for share in shares if share is not None)
    if asked >= 1 if None in shares else abs(asked - 1) > 1e-6:
        needed = "below 1, to leave room for the sets without one" if None in shares else "1"
        raise InputError(f"data.train: the shares sum to {asked:g}, but must sum to {needed}; change them")
    rows = [len(part) for part in slices]
    places = quotas(rows, [part.weight for part in slices], shares)
    sources = [
        Source(count, quota, _windows(part, settings.locality), in_order=isinstance(part.shards, StreamSet))
        for part, count, quota in zip(slices, rows, places, strict=True)
    ]
    return Mix(sources, seed, settings.shuffle)


def asked(slices: Sequence[Slice]) -> dict[str, float]:
    """The part of all samples that each set is to give, as its share or weight says it."""
    given = sum(part.share or 0.0 for part in slices)
    whole = sum(part.weight * len(part) for part in slices if part.share is None)
    return {
        part.name: part.weight * len(part) / whole * (1 - given) if part.share is None else part.share
        for part in slices
    }


def one_after_the_other(slices: Sequence[Slice]) -> Mix:
    """Every row once, in file order, set by set: for validation and test."""
    return Mix([Source(len(part), len(part)) for part in slices], seed=0, shuffle=False, interleave=False)


def _windows(part: Slice, locality: LocalitySettings | None) -> tuple[int, int] | None:
    """Rows of a block and blocks of a window, by the mean size of a row."""
    if locality is None or isinstance(part.shards, StreamSet):
        return None
    rows = max(1, round(locality.block_mb * 2**20 / part.shards.row_bytes))
    return rows, max(1, round(locality.window_mb / locality.block_mb))


def pairs(slices: Sequence[Slice]) -> list[str]:
    """Names of the prepared sets that hold preference pairs."""
    return [name for name, paired in _paired(slices).items() if paired]


def without_pairs(slices: Sequence[Slice]) -> list[str]:
    """Names of the prepared sets that hold none; a stream does not tell."""
    return [name for name, paired in _paired(slices).items() if not paired]


def _paired(slices: Sequence[Slice]) -> dict[str, bool]:
    prepared = {part.name: part.shards for part in slices if isinstance(part.shards, ShardSet)}
    return {name: "preference" in (shards.manifest.get("kind") or {}) for name, shards in prepared.items()}


def describe(uses: Mapping[str, Sequence[Slice]]) -> dict[str, Any]:
    """What data.json says of every set: its rows, and folder, licence and manifest or what a stream cannot promise."""
    return {"sets": {use: {part.name: _entry(part) for part in slices} for use, slices in uses.items()}}


def _entry(part: Slice) -> dict[str, Any]:
    shards = part.shards
    if isinstance(shards, StreamSet):
        return {"address": shards.address, "rows": len(part), "promises": PROMISES, "license": None}
    declared = shards.manifest.get("declared_faults")
    return {
        "dir": str(shards.directory),
        "rows": len(part),
        "manifest_sha256": shards.manifest_sha256,
        "license": shards.license,
        **({"declared_faults": declared} if declared else {}),
    }


def texts(slices: Sequence[Slice]) -> Iterator[str]:
    """Every text of the training rows, all captions included, for a tokenizer to learn from.

    A row whose text cannot be read gives none; training meets it again and counts it.
    """
    for part in slices:
        for row in range(len(part)):
            try:
                sample = part.text(row)
            except InputError as error:
                log.warning("no text from %s row %d: %s", part.name, row, error)
                continue
            captions = sample.meta.get("captions")
            if captions:
                yield from captions
            else:
                for turn in sample.turns:
                    yield from (text for text in turn.parts if isinstance(text, str) and text)


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Sets whose manifest or address differs between two of `describe`'s records, as "train/mnist"."""

    def identities(record: Mapping[str, Any]) -> dict[str, str]:
        return {
            f"{use}/{name}": entry.get("manifest_sha256") or entry["address"]
            for use, sets in record["sets"].items()
            for name, entry in sets.items()
        }

    old, new = identities(before), identities(now)
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
