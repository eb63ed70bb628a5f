"""Progress with remaining time, on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """One line of progress."""

    def __init__(self, progress: Progress, label: str, total: int | None) -> None:
        self._progress, self._task = progress, progress.add_task(label, total=total)

    def to(self, done: int) -> None:
        self._progress.update(self._task, completed=done)


@contextmanager
def bar(label: str, total: int | None, unit: str = "rows") -> Iterator[Bar]:
    """A bar that vanishes at the end; nothing is drawn where standard error is a file."""
    count = DownloadColumn() if unit == "B" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bar(progress, label, total)
