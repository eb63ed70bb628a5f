"""Which errors to show: the plainest ones, of different pictures, from all splits, and always the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
MOST = 12  # errors of a benchmark whose pictures are kept and shown


def worst(rows: Iterable[Row], k: int, split_by: Sequence[str] = (), seed: int = 0) -> list[Row]:
    """Up to k rows that are not right: score 0 first, one a picture group, in turn from each split.

    rows: of predictions.jsonl, any iterable; it is read once and only about k rows of a split are kept.
    split_by: keys of the reference whose values are the splits.   seed: of the choice among equal scores, which does
    not depend on the order of the rows.
    """
    errors = Errors(k, split_by, seed)
    for row in rows:
        errors.add(row)
    return errors.pick()


class Errors:
    """The same, of rows that come one by one."""

    def __init__(self, k: int, split_by: Sequence[str] = (), seed: int = 0) -> None:
        self.k, self.split_by, self.seed = k, tuple(split_by), seed
        # split -> group -> its worst row, with its rank
        self._kept: dict[tuple[str, ...], dict[str, tuple[tuple[float, bytes], Row]]] = {}

    def add(self, row: Row) -> None:
        """Takes a row into account; one with full score is no error."""
        score, group = float(row["score"]), str(row.get("group", row["id"]))
        if score >= 1 or self.k < 1:
            return
        rank = (score, hashlib.blake2b(f"{self.seed}\0{row['id']}".encode("utf-8", "replace"), digest_size=8).digest())
        kept = self._kept.setdefault(self._split(row), {})
        if group not in kept or rank < kept[group][0]:
            kept[group] = (rank, row)
        if len(kept) > 4 * self.k + 64:  # what is dropped lies behind k other groups, and these can only get worse
            for name in sorted(kept, key=lambda name: kept[name][0])[self.k :]:
                del kept[name]

    def pick(self) -> list[Row]:
        """At most k rows. A split without further errors leaves its places to the others."""
        queues = [
            sorted(((rank, group, row) for group, (rank, row) in kept.items()), key=lambda item: item[:2])
            for _, kept in sorted(self._kept.items())
        ]
        picked: list[Row] = []
        seen: set[str] = set()
        for most in (0.0, 1.0):  # what is wholly wrong in all splits, then what is partly right
            while True:
                before = len(picked)
                for queue in queues:
                    while queue and queue[0][1] in seen:
                        queue.pop(0)
                    if queue and queue[0][0][0] <= most and len(picked) < self.k:
                        _, group, row = queue.pop(0)
                        seen.add(group)
                        picked.append(row)
                if len(picked) == before:
                    break
        return picked

    def _split(self, row: Row) -> tuple[str, ...]:
        reference = row.get("reference")
        return tuple(str(reference.get(key)) if isinstance(reference, Mapping) else "" for key in self.split_by)
