"""config.json of a model's folder in Hugging Face's form, read without loading anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlm.contracts.errors import Mismatch


def read_config(path: str, form: str) -> dict[str, Any]:
    """form: what a folder must hold, for people. Raises: Mismatch("path", ...) for a folder without one, or a damaged one."""
    file = Path(path) / "config.json"
    if not file.is_file():
        what = "has no config.json" if Path(path).is_dir() else f"is no folder (seen from {Path.cwd()})"
        raise Mismatch("path", f"{path} {what}; {form}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Mismatch("path", f"{file} is not valid JSON ({error}); copy it again") from error
    if not isinstance(config, dict):
        raise Mismatch("path", f"{file} does not describe a model; {form}")
    return config
