"""How a run ends that was asked to."""

from __future__ import annotations


class Stopped(SystemExit):
    """The run was asked to stop and its state is saved."""

    def __init__(self) -> None:
        super().__init__(75)
