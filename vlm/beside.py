"""Compared models become a page, with the pictures of the questions out of the benchmarks' own files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from vlm.contracts.errors import InputError
from vlm.evaluation.compare import Comparison
from vlm.models.assemble import create
from vlm.reporting.answers import Pairing
from vlm.reporting.answers_page import write_answers

HASHED = 2**24  # bytes; a larger file is not read whole to show some pictures of it
DRAW = "/draw "  # what stands between a question's id and the number of its answer, where several were drawn


def write_comparison(comparison: Comparison, data: Path, out: Path) -> Path:
    """The page of answers side by side. data: folder of prepared sets and benchmark files.

    Raises: InputError for evaluation folders that cannot be read; RunError if the page cannot be written.
    """
    return write_answers(comparison, partial(_pictures, data), out)


def _pictures(data: Path, pairing: Pairing) -> Mapping[str, bytes]:
    """Of the questions that are shown, each one's first picture.

    Raises: InputError for files that are not there, or are no longer those that were asked about.
    """
    node = pairing.settings.get("reader")
    if node is None:
        raise InputError(f"the results of {pairing.settings['name']} do not tell where its pictures lie")
    reader = create({**node, "folder": str(data / node["folder"])})
    wanted = {row.id.partition(DRAW)[0] for row in pairing.rows}
    try:
        found = {question.id: question for question in reader.questions() if question.id in wanted}
        _refuse_changed(Path(reader.folder), pairing.settings["files"])
        return {
            row.id: question.pictures[0].read()
            for row in pairing.rows
            if (question := found.get(row.id.partition(DRAW)[0])) is not None
            and question.pictures
            and question.pictures[0].type == "image"
        }
    except (InputError, OSError) as error:
        raise InputError(f"the pictures of {pairing.settings['name']} are not shown: {error}") from error


def _refuse_changed(folder: Path, files: Mapping[str, str]) -> None:
    for name, wanted in files.items():
        path = folder / name
        if path.stat().st_size <= HASHED and hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
            raise InputError(f"{path} has changed since the questions were asked")
