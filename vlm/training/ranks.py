"""What a process knows of the others before it talks to them: its number, and a sign of life for who watches."""

from __future__ import annotations

import os
from pathlib import Path

PARENT = "VLM_PARENT"  # the process that watches over the ranks
HEARTBEAT = "VLM_HEARTBEAT"  # a folder in which every rank notes the last step it has finished


# Read once: at its end a trainer takes its variables out of the environment.
_RANK, _WORLD = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")


def rank() -> int:
    """Of this process, as its launcher says; 0 if it is alone."""
    return int(_RANK or 0)


def launched_world() -> int | None:
    """Number of processes that a launcher started together; None if there was no launcher."""
    return int(_WORLD) if _RANK is not None and _WORLD is not None else None


def is_orphaned() -> bool:
    """Whether nobody watches over this rank any more."""
    return PARENT in os.environ and int(os.environ[PARENT]) != os.getppid()


def beat(step: int) -> None:
    if folder := os.environ.get(HEARTBEAT):
        (Path(folder) / str(rank())).write_text(str(step))


def last_beats(folder: Path, world: int) -> list[int | None]:
    """The last step that each rank has finished; None = it has not begun to train."""
    files = [folder / str(number) for number in range(world)]
    return [int(file.read_text() or 0) if file.exists() else None for file in files]
