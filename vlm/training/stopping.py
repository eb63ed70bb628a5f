"""How a run ends that was asked to."""

from __future__ import annotations

STOPPED = 75  # exit code of a process that was stopped on request: the same command goes on


class Stopped(SystemExit):
    """The run was asked to stop and its state is saved."""

    def __init__(self) -> None:
        super().__init__(STOPPED)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:  # an exception is pickled by its exit code
        return type(self), ()
