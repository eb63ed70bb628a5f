"""Which jobs of a sweep are looked at before it starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

FULLY_CHECKED = 256  # jobs that are composed one by one; of more, single values are


def combinations(values: Mapping[str, list[str]]) -> list[list[str]]:
    """The jobs of a sweep to look at before it starts: all, or of very many one for each single value.

    values: key -> its overrides, one for each value.
    """
    if math.prod(map(len, values.values())) <= FULLY_CHECKED:
        return [list(job) for job in itertools.product(*values.values())]
    first = {key: choices[0] for key, choices in values.items()}
    singles = [{**first, key: choice} for key, choices in values.items() for choice in choices[1:]]
    return [list(job.values()) for job in [first, *singles]]
