"""How many rows of each fault a source may have; beyond that the source itself is broken and the run stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from vlm.contracts.errors import InputError

CHECK_EVERY = 10_000  # rows: a broken source fails in its first minute

# Percent of the rows read; None = counted without a limit. Every skip has one of these names.
PERCENT: dict[str, float | None] = {
    "media_missing": 1.0,
    "media_truncated": 0.2,  # together with media_undecodable
    "media_undecodable": 0.2,
    "link_dead": 45.0,  # of a list of addresses
    "media_is_html": 0.2,  # of lists of addresses 5
    "media_tiny": 0.5,
    "media_huge": 0.1,
    "media_aspect": 0.2,
    "media_blank": 0.2,
    "media_placeholder": 5.0,
    "video_unreadable": 2.0,  # not one frame of a clip decodes
    "video_short": 2.0,  # under two frames at the rate at which they are taken
    "text_empty": 0.5,
    "text_template": 0.5,
    "text_malformed": 0.2,
    "text_long": 1.0,
    "label_bad": 0.5,
    "placeholder_mismatch": 0.2,
    "turns_bad": 0.2,
    "row_malformed": 0.2,
    "annotation_missing": 2.0,
    "pair_equal": 0.5,
    "pair_contradiction": 0.5,
    "answer_malformed": 1.0,
    "eval_overlap": None,
    "dup_exact": None,
    "excluded": None,  # left out by the set's own rules
}
TOGETHER = {"media_truncated": "media_undecodable"}


class OverBudget(InputError):
    """Too many rows of a source cannot be used."""


class Budget:
    """Counts skips by reason against their limits, over all splits of a source."""

    def __init__(self, overrides: Mapping[str, float | None], state: Mapping[str, Any] | None = None) -> None:
        """state: of an earlier one that this one goes on from."""
        self.percent = {**PERCENT, **overrides}
        state = state or {}
        self.rows: int = state.get("rows", 0)
        self.skipped: Counter[str] = Counter(state.get("skipped"))
        self._examples: dict[str, list[str]] = dict(state.get("examples", {}))

    def state(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"rows": self.rows, "skipped": dict(self.skipped), "examples": self._examples}

    def kept(self, rows: int) -> None:
        """`rows` source rows became a sample."""
        self._read(rows)

    def skip(self, reason: str, where: str, rows: int) -> None:
        """`rows` source rows were skipped. where: file, row and what was found, for the message."""
        self.skipped[reason] += rows
        self._examples.setdefault(reason, [])
        if len(self._examples[reason]) < 3:
            self._examples[reason].append(where)
        self._read(rows)

    def _read(self, rows: int) -> None:
        before, self.rows = self.rows, self.rows + rows
        if before // CHECK_EVERY != self.rows // CHECK_EVERY:
            self.enforce()

    def used(self) -> dict[str, dict[str, float | None]]:
        """reason -> allowed and used percent, for every reason that occurred."""
        return {
            reason: {"percent": self.percent[reason], "used": round(100 * count / max(1, self.rows), 4)}
            for reason, count in sorted(self.skipped.items())
        }

    def enforce(self) -> None:
        """Raises: OverBudget that lists every reason over its limit, with its first rows."""
        counts: Counter[str] = Counter()
        for reason, count in self.skipped.items():
            counts[TOGETHER.get(reason, reason)] += count
        broken = [
            self._complaint(reason, count, limit)
            for reason, count in sorted(counts.items())
            if (limit := self.percent[reason]) is not None and 100 * count > limit * self.rows
        ]
        if broken:
            raise OverBudget("too many rows cannot be used\n" + "\n".join(broken))

    def _complaint(self, reason: str, count: int, limit: float) -> str:
        names = [name for name in self._examples if TOGETHER.get(name, name) == reason]
        examples = [f"    {name}: {where}" for name in names for where in self._examples[name]]
        needed = min(100.0, -(-10_000 * count // max(1, self.rows)) / 100 + 0.01)
        return "\n".join(
            [
                f"  {reason}: {count} of {self.rows} rows; {limit:g} percent are allowed. First of them (rows count from 0):",
                *examples,
                "    Every row is concerned: look at the first ones, the files have another form or lie elsewhere"
                if count == self.rows
                else f"    Repair or remove them, or allow them with source.budget.{reason}={needed:g}",
            ]
        )
