"""A user's own rows: one JSON object a line in the one .jsonl of a folder, which may name pictures beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_prep.reading.places import Pictures
from data_prep.reading.tables import json_rows, layout
from data_prep.rows import Inputs, Picture, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.data.canonical import Origin

REMEDY = "Paths count from the folder that is given with from="


def only_file(folder: Path, called: str, form: str) -> Path:
    """called: what people may call it, for messages.   form: of a row. Raises: InputError for no or several files."""
    files = sorted(folder.glob("*.jsonl"))
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        raise InputError(f"{folder} must hold exactly one file of rows ({called}), found: {found}; each line is {form}")
    return files[0]


Make = Callable[[Pictures, str, Origin, dict[str, Any]], Row]


def own_rows(
    inputs: Inputs, called: str, form: str, fault_of: Callable[[dict[str, Any]], str], make: Make
) -> Iterator[Row | Skip]:
    """Each line that is not blank, with the row's own "id" or else its line.

    called, form: as in `only_file`.   fault_of: what keeps an object from being a row, "" = nothing.
    make: (pictures, file and line, origin, object) -> row; what it raises as Unfit is a skip.
    Raises: InputError for a file whose first row is faulty, for it is of another form, and as json_rows does.
    """
    file = inputs.note(only_file(inputs.only(), called, form))
    pictures = Pictures(inputs, ["."], REMEDY)
    for origin, content in _objects(file, form, fault_of):
        try:
            if isinstance(content, Unfit):
                raise content
            yield make(pictures, f"{file} line {origin.row + 1}", origin, content)
        except Unfit as fault:
            yield Skip(None, origin, fault.reason, fault.detail)


def _objects(
    file: Path, form: str, fault_of: Callable[[dict[str, Any]], str]
) -> Iterator[tuple[Origin, dict[str, Any] | Unfit]]:
    if layout(file) != "lines":
        raise InputError(f"{file} holds one JSON array; write each of its objects on a line of its own: {form}")
    for place, (number, read) in enumerate(json_rows(file, form)):
        content, name = _checked(read, fault_of), f"line {number + 1}"
        if isinstance(content, Unfit) and place == 0:
            raise InputError(f"{file} {name} {content.detail}; each line is {form}")
        if not isinstance(content, Unfit):
            name = str(content.get("id", name))
        yield Origin(file.name, number, name), content


def _checked(content: Any, fault_of: Callable[[dict[str, Any]], str]) -> dict[str, Any] | Unfit:
    if isinstance(content, Unfit):
        return content
    fault = fault_of(content) if isinstance(content, dict) else "is no object"
    return Unfit("row_malformed", fault) if fault else content


def own_pictures(content: dict[str, Any], pictures: Pictures, where: str) -> tuple[Picture, ...]:
    """Those that the row names under "images" or "image", in order.

    Raises: Unfit("row_malformed" | "media_missing"), InputError for a path that leaves the folder.
    """
    given = content.get("images", content.get("image"))
    names = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise Unfit("row_malformed", f'"images" is {str(given)[:60]!r}; give a list of paths')
    return tuple(Picture(pictures.at(name, where), name) for name in names)
