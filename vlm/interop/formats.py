"""Published layouts by name."""

from __future__ import annotations

from pathlib import Path

from vlm.contracts.errors import InputError
from vlm.interop import purevlm, supravl_nano
from vlm.interop.foreign import Foreign

FORMATS = {"purevlm": purevlm.read, "supravl_nano": supravl_nano.read}


def read_checkpoint(format: str, path: Path) -> Foreign:
    """Raises: InputError for an unknown format, a missing path, or a file that does not fit."""
    if format not in FORMATS:
        raise InputError(f"format={format!r} is unknown; choose one of {', '.join(FORMATS)}")
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    return FORMATS[format](path)
