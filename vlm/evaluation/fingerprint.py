"""Which model gave the answers, whatever its folder is called."""

from __future__ import annotations

from pathlib import Path

import xxhash

from vlm.contracts.errors import InputError

CHUNK = 1 << 24  # bytes read at a time


def weights_fingerprint(folder: Path) -> str:
    """16 hexadecimal digits of everything in a saved model's folder that decides its answers.

    Raises: InputError if a file cannot be read.
    """
    digest = xxhash.xxh3_64()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and _decides(path, folder)):
        digest.update(str(path.relative_to(folder)).encode())
        try:
            with path.open("rb") as file:
                while piece := file.read(CHUNK):
                    digest.update(piece)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _decides(path: Path, folder: Path) -> bool:
    inside = path.relative_to(folder).parts
    return inside[0] != "evaluation" and path.suffix in (".safetensors", ".json", ".jinja", ".model", ".txt")
