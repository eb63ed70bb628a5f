"""The sets that a run reads, opened and described before anything else is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm.contracts.errors import InputError
from vlm.contracts.sample import Sample
from vlm.contracts.settings import DataSettings, SetUse
from vlm.data.shards import ShardSet


@dataclass(frozen=True)
class Slice:
    """Rows start .. stop-1 of a prepared set."""

    name: str
    shards: ShardSet
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, row: int) -> Sample:
        return self.shards[self.start + row]


def open_slices(root: str, uses: Mapping[str, SetUse | None]) -> tuple[list[Slice], list[float]]:
    """Slices and weights of `train`, `validate` or `test`; a set that is null is left out.

    Raises: InputError for a set that is not there (with the command that gets it) or rows that it does not have.
    """
    slices, weights = [], []
    for name, use in uses.items():
        if use is None:
            continue
        shards = ShardSet(Path(root) / name / use.split)
        start, stop = use.rows or (0, len(shards))
        if not 0 <= start < stop <= len(shards):
            raise InputError(
                f"data: {name}/{use.split} has {len(shards)} rows, but rows {start} to {stop} are asked for; set "
                f"data.<use>.{name}.rows to a range within it, or to null for all"
            )
        slices.append(Slice(name, shards, start, stop))
        weights.append(use.weight)
    return slices, weights


@dataclass(frozen=True)
class Opened:
    """All that a run reads. slices: by use, `train`, `validate`, `test`; weights: of the training slices.

    record: what data.json says about them.
    """

    slices: dict[str, list[Slice]]
    weights: list[float]
    record: dict[str, Any]


def open_all(root: str, settings: DataSettings) -> Opened:
    """Raises: InputError as `open_slices`."""
    train, weights = open_slices(root, settings.train)
    slices = {"train": train}
    slices["validate"], _ = open_slices(root, settings.validate)
    slices["test"], _ = open_slices(root, settings.test)
    return Opened(slices, weights, describe(slices))


def describe(uses: Mapping[str, Sequence[Slice]]) -> dict[str, Any]:
    """What data.json says: folder, rows, licence and manifest of every set."""
    return {
        "sets": {
            use: {
                part.name: {
                    "dir": str(part.shards.directory),
                    "rows": len(part),
                    "manifest_sha256": part.shards.manifest_sha256,
                    "license": part.shards.license,
                }
                for part in slices
            }
            for use, slices in uses.items()
        }
    }


def texts(slices: Sequence[Slice]) -> Iterator[str]:
    """Every text of the training rows, all captions included, for a tokenizer to learn from."""
    for part in slices:
        for row in range(len(part)):
            sample = part[row]
            captions = sample.meta.get("captions")
            if captions:
                yield from captions
            else:
                for turn in sample.turns:
                    yield from (text for text in turn.parts if isinstance(text, str) and text)


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Sets whose manifest differs between two of `describe`'s records, as "train/mnist"."""

    def manifests(record: Mapping[str, Any]) -> dict[str, str]:
        return {
            f"{use}/{name}": entry["manifest_sha256"]
            for use, sets in record["sets"].items()
            for name, entry in sets.items()
        }

    old, new = manifests(before), manifests(now)
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
