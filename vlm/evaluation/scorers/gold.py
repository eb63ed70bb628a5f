"""Gold data of a row, with an error that names what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlm.contracts.errors import InputError


def value(reference: Any, key: str) -> Any:
    """What the gold data has under `key`. Raises: InputError if it has nothing there."""
    if not isinstance(reference, Mapping) or key not in reference:
        raise InputError(f"gold data {reference!r} has no {key!r}: correct the benchmark's file or its reader")
    return reference[key]
