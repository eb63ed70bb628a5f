"""Tables as the harnesses write them, cell by cell as text, and the gold data that their columns hold."""

from __future__ import annotations

import ast
import csv
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from vlm.contracts.errors import InputError

LONGEST_CELL = 100_000_000  # characters; csv stops at 131,072 by itself
CHOICES = ("mmbench", "ai2d", "scienceqa", "mmmu")
OPEN_AS_CHOICE = "Other Answers"  # the second option that VLMEvalKit gives MMMU's open questions


def cells(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """Rows of an .xlsx, .csv, .tsv or .json table; an empty cell is "".

    Raises: InputError for another kind of file, a missing column, a row of another length, or a table without rows.
    """
    readers = {".xlsx": _xlsx, ".tsv": _separated, ".csv": _separated, ".json": _objects}
    if path.suffix not in readers:
        raise InputError(f"{path}: tables are read from {', '.join(readers)}")
    rows = readers[path.suffix](path)
    if not rows:
        raise InputError(f"{path} has no rows")
    missing = [name for name in needed if name not in rows[0]]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}; it has {', '.join(rows[0])}")
    return rows


def records(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of JSON Lines. Raises: InputError naming the line for anything else."""
    number = 0
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number} is no valid JSON: {error}") from error
        missing = [name for name in needed if name not in row] if isinstance(row, dict) else [*needed]
        if missing:
            raise InputError(f"{path}, line {number} has no {', '.join(missing)}")
        yield number, row
    if not number:
        raise InputError(f"{path} has no rows")


def as_number(text: str, where: str) -> float | None:
    """None for an empty cell and NaN. Raises: InputError for other text."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{where}: {text!r} is no number") from error
    return None if math.isnan(value) else value


def reference(benchmark: str | None, row: Mapping[str, str], bare: bool = False) -> Any:
    """Gold data of a row in the shape that the benchmark's scorer takes; None where the columns do not tell.

    bare: the row has the answer and nothing else.
    """
    answer = row.get("answer", "")
    if benchmark == "pope":
        rest = {} if bare else {"question_id": row["index"], "category": row.get("category", "")}
        return {**rest, "label": answer.lower()}
    if benchmark == "mme":
        rest = {"category": "category", "image": "image_path", "question_id": "index"}
        return {ours: row.get(theirs, "") for ours, theirs in rest.items() if not bare} | {"answer": answer}
    if benchmark == "chartqa":
        return {"answer": answer, "type": row.get("split", "")}
    if benchmark == "pathvqa":
        return {"answer": answer, "answer_type": "closed" if answer.lower() in ("yes", "no") else "open"}
    if bare:
        return None
    if benchmark in ("textvqa", "docvqa"):
        return _list(answer)
    return _choice(benchmark, row, answer) if benchmark in CHOICES else None


def _choice(benchmark: str, row: Mapping[str, str], gold: str) -> dict[str, Any] | None:
    options = {letter: row[letter] for letter in ascii_uppercase if row.get(letter)}
    if gold not in options or OPEN_AS_CHOICE in options.values():
        return None
    if benchmark == "mmbench":
        kept = {name: row[name] for name in ("index", "category", "l2-category") if name in row}
        return {"options": options, "gold": gold, **kept}
    if benchmark == "scienceqa":
        return {"choices": [*options.values()], "gold": gold, "has_image": True}
    return {
        "options": [*options.values()],
        "gold": gold,
        **({"question_type": "multiple-choice"} if benchmark == "mmmu" else {}),
    }


def _list(text: str) -> list[str]:
    """A Python list written as text, or the one answer that the text is."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return [text]
    return [str(value) for value in found] if isinstance(found, list) else [text]


def _separated(path: Path) -> list[dict[str, str]]:
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding="utf-8", newline="") as file:
        try:
            lines = [*csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)]
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path} is no table: {error}") from error
    return _table(path, lines)


def _xlsx(path: Path) -> list[dict[str, str]]:
    try:
        from openpyxl import load_workbook  # type: ignore[import-untyped]
        from openpyxl.utils.exceptions import InvalidFileException  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            f"{path}: reading .xlsx takes openpyxl (pip install openpyxl), or let VLMEvalKit write PRED_FORMAT=tsv"
        ) from error
    try:
        book = load_workbook(path, read_only=True, data_only=False)
    except (InvalidFileException, zipfile.BadZipFile, KeyError, OSError) as error:
        raise InputError(f"{path} is no readable .xlsx file: {error}") from error
    lines = [
        ["" if cell is None else str(cell) for cell in row] for row in book.worksheets[0].iter_rows(values_only=True)
    ]
    book.close()
    return _table(path, lines)


def _objects(path: Path) -> list[dict[str, str]]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no valid JSON: {error}") from error
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise InputError(f"{path}: a list of objects, one a row, is expected")
    return [{str(key): _text(value) for key, value in row.items()} for row in found]


def _text(value: Any) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def _table(path: Path, lines: list[list[str]]) -> list[dict[str, str]]:
    if not lines:
        return []
    head = lines[0]
    if len(set(head)) != len(head):
        raise InputError(f"{path}: a column name comes twice: {', '.join(head)}")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if len(line) > len(head) or (len(line) < len(head) and path.suffix != ".xlsx"):
            raise InputError(f"{path}, row {number} has {len(line)} cells, the head has {len(head)}")
        rows.append(dict(zip(head, [*line, *[""] * (len(head) - len(line))], strict=True)))
    return rows
