"""Seconds of each part of a longer job, shown as a table at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """entries: (part, seconds, note), in order."""

    entries: list[tuple[str, float, str]] = field(default_factory=list)

    @contextmanager
    def part(self, name: str) -> Iterator[list[str]]:
        """Measures its body, also when that fails; words appended to the list become the note."""
        notes: list[str] = []
        begin = time.perf_counter()
        try:
            yield notes
        finally:
            self.add(name, time.perf_counter() - begin, " ".join(notes))

    def add(self, name: str, seconds: float, note: str = "") -> None:
        self.entries.append((name, seconds, note))

    def __str__(self) -> str:
        rows = [*self.entries, ("together", sum(seconds for _, seconds, _ in self.entries), "")]
        width = max(len(name) for name, _, _ in rows)
        return "\n".join(f"  {name:<{width}}  {seconds:7.1f} s  {note}".rstrip() for name, seconds, note in rows)
