"""A form's folder: its files, what they are, and their checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from data_prep.forms.material import File, Material
from data_prep.settings import Package
from vlm.contracts.errors import InputError

SUMS = "SHA256SUMS"  # as sha256sum writes and checks it


def write(form: str, material: Material, out: Path, package: Package) -> dict[str, Any]:
    """`<out>/<form>/`, whole or not at all; one that is there already is compared.

    form: a module of this package with `ABOUT` and `files`.   Returns: counts, for people.
    Raises: InputError if another folder of that name is there.
    """
    module = import_module(f"data_prep.forms.{form}")
    make: Callable[[Material], Iterator[File]] = module.files
    folder, part = out / form, out / f".{form}-{os.getpid()}.part"
    try:
        sums, rows, size = _written(make(material), part)
        text = _readme(form, module, package, sums, rows)
        sums["README.md"] = _put(part / "README.md", text.encode())
        listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
        _put(part / SUMS, listing.encode())
        if not folder.exists():
            os.replace(part, folder)
        elif not (folder / SUMS).is_file() or (folder / SUMS).read_text("utf-8") != listing:
            raise InputError(f"{folder} is there with other content; remove it or name another folder with out=DIR")
    finally:
        shutil.rmtree(part, ignore_errors=True)
    digest = hashlib.sha256(listing.encode()).hexdigest()
    return {"form": form, "folder": str(folder), "rows": rows, "files": len(sums), "bytes": size, "sha256": digest}


def _written(files: Iterator[File], part: Path) -> tuple[dict[str, str], dict[str, int], int]:
    """Name -> sha256 of each, name -> rows of the tables, and the bytes of all."""
    sums, rows, size = {}, {}, 0
    for file in files:
        path = part / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        sums[file.name] = _put(path, file.data)
        size += len(file.data)
        if file.rows:
            rows[file.name] = file.rows
    return sums, rows, size


def _put(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _readme(form: str, module: Any, package: Package, sums: dict[str, str], rows: dict[str, int]) -> str:
    tables = "".join(f"| `{name}` | {count:,} | `{sums[name]}` |\n" for name, count in sorted(rows.items()))
    return (
        f"# {(module.__doc__ or '').strip()}\n\n"
        f"Made from {package.name} {package.version} ({package.client}; licence {package.license}, which holds for "
        f"these files too). Every answer comes from its annotations or pixels, none from a model.\n"
        f"This is not the published benchmark: scores are comparable with each other only.\n\n{module.ABOUT}\n\n"
        f"| Table | Rows | sha256 |\n| --- | ---: | --- |\n{tables}\n"
        f"{len(sums)} files; `sha256sum -c {SUMS}` checks them. "
        f"Made with: `python -m data_prep.forms out=DIR forms=[{form}]`\n"
    )
