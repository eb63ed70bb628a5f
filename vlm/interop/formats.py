"""Published layouts by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm.contracts.errors import InputError
from vlm.interop import fvlm, keural, purevlm, supravl_nano
from vlm.interop.foreign import Foreign

WHOLE = {"purevlm": purevlm.read, "supravl_nano": supravl_nano.read}  # everything is in the file or folder
TAKES = {"keural": ("base", "quantize", "encoder"), "fvlm": ("base",)}  # of `Beside`
FORMATS = (*WHOLE, *TAKES)


@dataclass(frozen=True)
class Beside:
    """What a published folder does not hold, of the layouts that leave something out.

    base: folder of the language model, or of fVLM's tokenizer alone.   quantize: how it is kept, as llm.quantize.
    encoder: node of one's own encoder, which takes the place of the published one.
    """

    base: str | None = None
    quantize: str | None = None
    encoder: Mapping[str, Any] | None = None


def read_checkpoint(format: str, path: Path, beside: Beside | None = None) -> Foreign:
    """Raises: InputError for an unknown format, a missing path, or a file that does not fit."""
    beside = beside or Beside()
    if format not in FORMATS:
        raise InputError(f"format={format!r} is unknown; choose one of {', '.join(FORMATS)}")
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if given := [
        name for name, value in vars(beside).items() if value is not None and name not in TAKES.get(format, ())
    ]:
        raise InputError(
            f"{', '.join(given)}: means nothing to format={format}, which holds the whole model; leave it out"
        )
    if format == "keural":
        return keural.read(path, beside.base, beside.quantize, beside.encoder)
    return fvlm.read(path, beside.base) if format == "fvlm" else WHOLE[format](path)
