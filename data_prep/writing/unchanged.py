"""Whether the input files are those of an earlier start that this one goes on from."""

from __future__ import annotations

from collections.abc import Sequence

from data_prep.rows import SourceFile
from vlm.contracts.errors import InputError


class Unchanged:
    """before: what the earlier start had read.   removal: the command after which a new start begins anew."""

    def __init__(self, before: Sequence[SourceFile], removal: str) -> None:
        self._before, self._removal = list(before), removal

    def check(self, files: Sequence[SourceFile], at_end: bool = False) -> None:
        """files: read by now, in the same order; the last ones may still be missing until the end.

        Raises: InputError that names the file that has changed.
        """
        seen = files[: len(self._before)]
        for before, now in zip(self._before, seen, strict=False):
            if before != now:
                raise InputError(
                    f"{now.file} has changed since this preparation was begun. To begin anew: {self._removal}"
                )
        if len(seen) == len(self._before):
            self._before = []
        elif at_end:
            raise InputError(
                f"{self._before[len(seen)].file} was read when this preparation was begun, and is not read any more. "
                f"To begin anew: {self._removal}"
            )
