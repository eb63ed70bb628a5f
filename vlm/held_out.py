"""A few pictures to look at: those that are given, or some that a run has not trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from vlm.contracts.errors import InputError
from vlm.contracts.settings import SetUse
from vlm.data.clips import still
from vlm.data.sources import Slice, open_slices

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
USES = TypeAdapter(dict[str, SetUse | None])


@dataclass(frozen=True)
class Found:
    """pictures: name and encoded file of each.   count: of how many they were taken.   source: where from, in words."""

    pictures: list[tuple[str, bytes]]
    count: int
    source: str


def given_pictures(images: str | Sequence[str], most: int) -> Found:
    """Files, or the pictures of a folder by name, evenly spread if there are more than `most`.

    Raises: InputError for what is not there, cannot be read, or holds no picture.
    """
    paths = [Path(images)] if isinstance(images, str) else [Path(name) for name in images]
    files = [file for path in paths for file in (_inside(path) if path.is_dir() else [path])]
    if not files:
        raise InputError("images: no file is named; give images=DIR, or leave it out for held-out pictures of the run")
    pictures = []
    for file in _spread(files, most):
        try:
            pictures.append((file.name, file.read_bytes()))
        except OSError as error:
            raise InputError(f"images: {file}: the picture cannot be read: {error.strerror or error}") from error
    return Found(pictures, len(files), str(images) if isinstance(images, str) else "the files that were named")


def held_out_pictures(run: Path, data: str, most: int) -> Found:
    """Different pictures of what the run validates and tests on, in turn from each set, evenly spread over its rows.

    data: folder of the prepared sets.   Raises: InputError for a folder that does not tell its data, or sets that are
    not there.
    """
    slices = open_slices(data, _uses(run))
    found: dict[str, tuple[str, bytes]] = {}  # by what the picture is
    queues = [_rows(part, -(-most // len(slices))) for part in slices]
    while queues and len(found) < most:
        for queue in list(queues):
            picture = next((picture for picture in queue if picture[0] not in found), None)
            if picture is None:
                queues.remove(queue)
            elif len(found) < most:
                found[picture[0]] = picture[1:]
    if not found:
        raise InputError(f"images: what {run} holds out has no pictures; give images=DIR")
    names = ", ".join(f"{part.name} ({len(part):,} rows)" for part in slices)
    return Found(list(found.values()), sum(map(len, slices)), f"held-out rows of {names}")


def _inside(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"images: {folder} holds no picture ({', '.join(SUFFIXES)})")
    return files


def _uses(run: Path) -> dict[str, SetUse | None]:
    """What the run validates and tests on; of a set that it uses in both ways, the validation."""
    file = run / "config.yaml"
    try:
        config: Any = yaml.safe_load(file.read_text("utf-8"))
        held = config["data"]
        return {
            name: use
            for part in ("test", "validate")
            for name, use in USES.validate_json(json.dumps(held[part])).items()
        }
    except FileNotFoundError as error:
        raise InputError(
            f"images: {run} is no run folder, so its held-out pictures are not known; give images=DIR"
        ) from error
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
        raise InputError(f"images: {file} does not tell what the run holds out ({error}); give images=DIR") from error


def _rows(part: Slice, most: int) -> Iterator[tuple[str, str, bytes]]:
    """Hash, name and file of a picture, of rows that are evenly spread; then of others, as rows may share a picture."""
    for row in dict.fromkeys([*_spread(range(len(part)), most), *_spread(range(len(part)), 16 * most)]):
        sample = part[row]
        for medium in sample.media[:1]:
            yield medium.sha256, sample.key, still(medium, sample.key)


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """All of them, or `most` at even distances, from the middle of each stretch."""
    if len(items) <= most:
        return list(items)
    return [items[int((number + 0.5) * len(items) / most)] for number in range(most)]
