"""The sets that a run reads, opened and described before anything else is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm.contracts.errors import InputError
from vlm.contracts.settings import SetUse
from vlm.data.loader import Slice
from vlm.data.shards import ShardSet


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
