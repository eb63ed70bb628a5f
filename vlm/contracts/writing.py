"""Text files that appear whole or not at all, and what JSON can hold of numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlm.contracts.errors import RunError

REMEDY = "free some space or fix its permissions"


def write_whole(path: Path, pieces: Iterable[str], remedy: str = REMEDY) -> None:
    """Write a file as UTF-8 and put it in its place in one step: nobody ever reads half of it, after a crash neither.

    pieces: written one after another; if one cannot be made, the file that was there stays, and that error goes on.
    remedy: what the message tells to do.   Missing folders above are made. Processes that write the same file do not
    disturb each other, and the last one wins.
    Raises: RunError if it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}; {remedy}") from error
    finally:
        with suppress(OSError):  # nothing to clear up, or a fault that is told already
            aside.unlink(missing_ok=True)


def finite(content: Any) -> Any:
    """The same with numbers that JSON does not know as null, and tensors and NumPy scalars as plain numbers."""
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    content = content.item() if hasattr(content, "item") else content
    return None if isinstance(content, float) and not math.isfinite(content) else content
