"""Small files of the published forms, and what their readers give."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from vlm.contracts.benchmark import Question, Reader, Scored
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_rows, scorer

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(colour: int = 0) -> bytes:
    target = BytesIO()
    Image.new("RGB", (8, 6), (colour, 90, 200)).save(target, "PNG")
    return target.getvalue()


def cell(colour: int = 0, path: str | None = None) -> dict[str, Any]:
    """A picture as the hub's tables hold it."""
    return {"bytes": png(colour), "path": path}


def put(path: Path, content: Any) -> Path:
    """Bytes, text or JSON, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def put_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    return put(path, "".join(json.dumps(row) + "\n" for row in rows))


def put_parquet(path: Path, rows: Sequence[Mapping[str, Any]], pictures: Sequence[str] = ("image",), group: int = 2):
    """Two rows a row group, so that reading crosses its borders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        name: pa.array([row[name] for row in rows], IMAGE if name in pictures else None) for name in rows[0]
    }  # fmt: skip
    parquet.write_table(pa.table(columns), path, row_group_size=group)
    return path


def read(reader: Reader) -> list[Question]:
    return list(reader.questions())


def refused(reader: Reader, told: str) -> None:
    """told: a pattern that the message fits."""
    with pytest.raises(InputError, match=told):
        list(reader.questions())


def scored(reader: Reader, name: str, reply: Callable[[Question], str]) -> list[Scored]:
    """What each question gets for a reply, by the benchmark's scorer."""
    questions, found = read(reader), scorer(name)
    return score_rows(
        found,
        found.default,
        [question.id for question in questions],
        [question.group for question in questions],
        [reply(question) for question in questions],
        [question.reference for question in questions],
    )


def headline(reader: Reader, name: str, reply: Callable[[Question], str]) -> float:
    """The benchmark's first figure."""
    figure = scorer(name).measures(scored(reader, name, reply))[0]
    return float(figure.combine(figure.columns.sum(0)))


def is_perfect(reader: Reader, name: str, reply: Callable[[Question], str]) -> bool:
    """Whether every question is right."""
    return all(row.score == 1.0 for row in scored(reader, name, reply))
