"""Rows of JSON, JSON Lines, parquet, tab- and comma-separated files, one after the other in little memory."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TextIO

import pyarrow as pa
from pyarrow import parquet

from data_prep.rows import Unfit
from vlm.contracts.errors import InputError

CHUNK = 1 << 20  # characters of a JSON array, or bytes of another file, that are read at a time
LONGEST = 1 << 26  # bytes of one row; a file without line ends must not fill the memory
BATCH = 32  # parquet rows at a time: pictures of a megabyte each are common
SPACES = re.compile(r"[ \t\r\n]*")

KINDS: dict[str, Callable[[pa.DataType], bool]] = {
    "string": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "int": pa.types.is_integer,
    "number": lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind),
    "image": lambda kind: pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind.fields},
    "list": lambda kind: pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind),
    "any": lambda kind: True,
    "unread": lambda kind: True,  # may be there, is not read
}


def layout(path: Path) -> str:
    """ "array" for a JSON array, "lines" for one JSON object a line, by the first character that is not blank.

    Raises: InputError for any other beginning.
    """
    with path.open("rb") as stream:
        begin = stream.read(CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip()[:40]
    if begin[:1] not in (b"[", b"{"):
        found = f"begins with {begin.decode('utf-8', 'replace')!r}" if begin else "is empty"
        raise InputError(f"{path} {found}; expected a JSON array or one JSON object a line")
    return "array" if begin[:1] == b"[" else "lines"


def json_rows(path: Path, form: str) -> Iterator[tuple[int, Any | Unfit]]:
    """(number from 0, value) of each element of a JSON array, or of each line that is not blank.

    form: what a row looks like, for messages.   NaN and numbers beyond a float are no JSON; lone surrogates stay.
    A line that cannot be read is an Unfit in its place; numbers count lines, so blank ones are counted too.
    Raises: InputError if the first row cannot be read, or where an array is damaged or ends early.
    """
    if layout(path) == "array":
        yield from _array(path, form)
    else:
        yield from _json_lines(path, form)


def column_names(path: Path) -> list[str]:
    """Of a parquet file. Raises: InputError if it is cut short or is none."""
    with _parquet_told(path):
        return parquet.read_schema(path).names


def row_count(path: Path) -> int:
    """Of a parquet file, by its footer. Raises: InputError if it is cut short or is none."""
    with _parquet_told(path):
        return parquet.read_metadata(path).num_rows


def parquet_rows(
    path: Path, columns: Mapping[str, str], form: str, optional: Mapping[str, str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 0, column -> value) of each row; absent values are None.

    columns: name -> one of KINDS.   optional: the same for columns that may be missing, and are then not in the row.
    "image" gives {"bytes", "path"}, "unread" columns are left out.   form: what a row looks like, for messages.
    Raises: InputError for a missing, unknown or otherwise typed column, and for a damaged file with the row.
    """
    number = 0
    try:
        # A column's page can be hundreds of megabytes of pictures; mapped, it is not copied before it is decoded.
        with parquet.ParquetFile(path, memory_map=True) as file:
            wanted = _checked(path, file.schema_arrow, columns, optional or {}, form)
            for batch in file.iter_batches(BATCH, columns=wanted, use_threads=False):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise InputError(
            f"{path} row {number} (from 0) cannot be read, the file is cut short or damaged ({_first_line(error)}); get it again"
        ) from error


def tab_rows(path: Path) -> Iterator[tuple[int, list[str] | Unfit]]:
    r"""(line from 0, fields) of each line. No quoting: captions hold quotation marks. Only \n and \r\n end a line.

    A line with a NUL byte or bytes that are not UTF-8 is an Unfit in its place.
    """
    for number, line in _lines(path):
        text = _text(line.removesuffix(b"\n").removesuffix(b"\r"))
        yield number, text if isinstance(text, Unfit) else text.split("\t")


def csv_rows(path: Path) -> Iterator[tuple[int, list[str] | Unfit]]:
    """(line from 0 where it begins, fields) of each row; a quoted field may hold commas, line ends and doubled quotes.

    A row with a NUL byte, bytes that are not UTF-8, or text after a closing quote is an Unfit in its place.
    Raises: InputError for a quote that is never closed, or closed lines later in the middle of a field.
    """
    csv.field_size_limit(LONGEST)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader, number = csv.reader(stream, strict=True), 0
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                if reader.line_num > number + 1 or "unexpected end" in str(error):
                    raise InputError(
                        f"{path} line {number + 1}: a quotation mark opens a field that does not end as it should "
                        f"before line {reader.line_num} ({error}); close it, and double the marks inside a field"
                    ) from error
                yield number, Unfit("row_malformed", f"{error}; double the quotation marks inside a field")
            else:
                if fields is None:
                    return
                text = _text("".join(fields).encode("utf-8", "surrogateescape"))
                yield number, text if isinstance(text, Unfit) else fields
            number = reader.line_num


def headed_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str] | Unfit]]:
    """(number from 0 behind the header, column -> field) of each row of a .csv whose header is exactly this.

    Raises: InputError for another header, and as csv_rows does.
    """
    rows = csv_rows(path)
    _, header = next(rows, (0, []))
    if header != list(columns):
        found = header.detail if isinstance(header, Unfit) else ", ".join(header) or "nothing"
        raise InputError(f"{path} begins with: {found[:300]}. Expected the header: {', '.join(columns)}")
    for number, (_, fields) in enumerate(rows):
        if not isinstance(fields, Unfit) and len(fields) != len(columns):
            fields = Unfit("row_malformed", f"{len(fields)} fields in place of {len(columns)}")
        yield number, fields if isinstance(fields, Unfit) else dict(zip(columns, fields, strict=True))


def count_lines(path: Path) -> int:
    """Line ends in the file, for progress bars."""
    with path.open("rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(CHUNK), b""))


@contextmanager
def _parquet_told(path: Path) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        raise InputError(f"{path} is cut short or damaged ({_first_line(error)}); get it again") from error


def _array(path: Path, form: str) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for value in _elements(stream):
                yield number, value
                number += 1
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} row {number} (from 0) of its array cannot be read: {error}. The {number} rows before it are "
            f"whole; get the file again. A row is {form}"
        ) from error


def _elements(stream: TextIO) -> Iterator[Any]:
    """Of the array that the stream holds. The standard decoder, fed bit by bit: yajl turns lone surrogates into "?"."""
    text, at, empty = stream.read(CHUNK).lstrip().removeprefix("["), 0, True
    while True:
        at = _after_spaces(text, at)
        if empty and text[at : at + 1] == "]":
            mark, end = "]", at
        else:
            try:
                value, end = DECODER.raw_decode(text, at)
                end = _after_spaces(text, end)
                mark = text[end : end + 1]
                if mark not in (",", "]"):
                    raise json.JSONDecodeError("Expecting ',' or ']'", text, end)
            except json.JSONDecodeError as error:  # damaged, or goes on in what is not yet read
                more = stream.read(max(CHUNK, len(text) - at)) if len(text) - at < LONGEST else ""
                if not more:
                    raise ValueError(f"{error.msg} at character {error.pos - at} of it") from error
                text, at = text[at:] + more, 0
                continue
            yield value
            empty = False
        at = end + 1
        if mark == "]":
            break
    if (text[at:] + stream.read(CHUNK)).strip():
        raise ValueError("the array is closed, but more text follows")


def _json_lines(path: Path, form: str) -> Iterator[tuple[int, Any | Unfit]]:
    first = True
    for number, line in _lines(path):
        if not line.strip():
            continue
        value: Any | Unfit
        try:
            value = DECODER.decode(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            if first:
                raise InputError(f"{path} line {number + 1} is not JSON ({error}); each line is {form}") from error
            value = Unfit("row_malformed", f"not JSON: {error}")
        first = False
        yield number, value


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as stream:
        for number, line in enumerate(iter(lambda: _line(path, stream), b"")):
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line


def _line(path: Path, stream: BinaryIO) -> bytes:
    line = stream.readline(LONGEST)
    if len(line) == LONGEST:
        at = stream.tell() - LONGEST
        raise InputError(f"{path}: the line at byte {at} is longer than {LONGEST >> 20} MiB; is it a file of lines?")
    return line


def _text(line: bytes) -> str | Unfit:
    if b"\0" in line:
        return Unfit("row_malformed", f"a NUL byte at byte {line.index(0)} of the row")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        return Unfit("row_malformed", f"not UTF-8 at byte {error.start} of the row ({error.reason})")


def _checked(
    path: Path, schema: pa.Schema, columns: Mapping[str, str], optional: Mapping[str, str], form: str
) -> list[str]:
    """Names of the columns to read."""
    known = {**columns, **optional}
    faults = [f"'{name}' is missing" for name in columns if name not in schema.names]
    faults += [f"'{name}' is not known" for name in schema.names if name not in known]
    faults += [
        f"'{name}' holds {schema.field(name).type}, not {kind}"
        for name, kind in known.items()
        if name in schema.names and not KINDS[kind](schema.field(name).type)
    ]
    if faults:
        found = ", ".join(schema.names) or "no columns"
        raise InputError(
            f"{path} is not what it should be: column {'; column '.join(faults)}. Found: {found}. A row is {form}"
        )
    return [name for name in schema.names if known[name] != "unread"]


def _after_spaces(text: str, at: int) -> int:
    match = SPACES.match(text, at)
    assert match is not None
    return match.end()


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:20]} is beyond the numbers of a float")
    return value


DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
