"""Positioned reads of a directory's files, from any process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vlm.contracts.errors import RunError
from vlm.data.manifest import again

OPEN = 256  # files at once in a process; the usual limit of a system is 1,024 for everything together


class Files:
    """Files are opened at the first read in each process, so it can be sent to other processes before or after that.

    Reading asks for the wanted bytes only and maps nothing: random reads of a large file do not make a process grow.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._open: dict[str, int] = {}

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Up to `size` bytes of a file, fewer only where it ends.

        Raises: RunError if the file has gone since the directory was opened, or the disk fails: every row of it is
        lost, which is no matter of single bad rows.
        """
        try:
            # Sharing a file after a fork is harmless: a positioned read moves no common offset.
            return os.pread(self._file(name), size, offset)
        except OSError as error:
            raise RunError(
                f"{self.directory / name} cannot be read any more ({error.strerror}); what was trained so far is kept: "
                f"see that the file is there, or {again(self.directory)}; then give the same command to go on"
            ) from error

    def close(self) -> None:
        """The next read opens files again."""
        for file in self._open.values():
            os.close(file)
        self._open.clear()

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def _file(self, name: str) -> int:
        if name not in self._open:
            if len(self._open) >= OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[name] = os.open(self.directory / name, os.O_RDONLY)
        return self._open[name]
