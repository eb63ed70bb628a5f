"""Files of rows, read one row after the other, with everything that may be wrong with them."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from data_prep.reading import tables
from data_prep.reading.tables import column_names, count_lines, csv_rows, json_rows, layout, parquet_rows, tab_rows
from data_prep.rows import Unfit
from vlm.contracts.errors import InputError

FORM = '{"id": 1}'


@pytest.fixture
def file(tmp_path: Path):
    def write(content: bytes) -> Path:
        path = tmp_path / "rows"
        path.write_bytes(content)
        return path

    return write


def reasons(rows) -> list[tuple[int, str]]:
    return [(number, row.reason) for number, row in rows if isinstance(row, Unfit)]


# --- JSON


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_an_array_and_its_lines_give_the_same_rows(file, monkeypatch, chunk: int) -> None:
    monkeypatch.setattr(tables, "CHUNK", chunk)
    rows = [
        {"id": 12345678901234567890, "share": 0.5, "text": 'a "kite" \\ \u2028 é 😀'},
        {"turns": [[1.25, None]]},
        {},
    ]
    array = json.dumps(rows, indent=1, ensure_ascii=False).encode()
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    monkeypatch.setattr(tables, "CHUNK", chunk)
    assert list(json_rows(file(array), FORM)) == list(enumerate(rows))
    assert list(json_rows(file(lines), FORM)) == list(enumerate(rows))


def test_the_first_character_decides_about_the_layout(file) -> None:
    assert layout(file(b"\xef\xbb\xbf \n [1]")) == "array"
    assert layout(file(b'{"id": 1}\n')) == "lines"
    with pytest.raises(InputError, match=r"begins with 'id,text.*expected a JSON array or one JSON object a line"):
        layout(file(b"id,text\n"))
    with pytest.raises(InputError, match="is empty"):
        layout(file(b" \n"))


def test_numbers_keep_their_kind_and_lone_surrogates_stay(file) -> None:
    for content in (b'[{"i": 3, "f": 3.0, "t": "x\\ud800y"}]', b'{"i": 3, "f": 3.0, "t": "x\\ud800y"}'):
        ((_, row),) = json_rows(file(content), FORM)
        assert [type(row[name]) for name in "if"] == [int, float]
        assert row["t"] == "x\ud800y"


def test_bad_lines_are_unfit_in_their_place_and_blank_ones_are_counted(file) -> None:
    content = b'{"id": 0}\n\n{"id": NaN}\n{"id"\n{"id": "\xff"}\n{"id": 1e999}\n' + b"[" * 100_000 + b'\n{"id": 7}'
    rows = list(json_rows(file(content), FORM))
    assert reasons(rows) == [(number, "row_malformed") for number in (2, 3, 4, 5, 6)]
    assert (rows[0], rows[-1]) == ((0, {"id": 0}), (7, {"id": 7}))


def test_a_first_line_that_is_not_json_is_refused_with_the_form(file) -> None:
    with pytest.raises(InputError, match=r'line 1 is not JSON .*each line is \{"id": 1\}'):
        list(json_rows(file(b'{\n"id": 1\n}\n'), FORM))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"id": 0}, {"id": ', r"row 1 \(from 0\) .*The 1 rows before it are whole"),
        (b'[{"id": 0},', "row 1 .*Expecting value"),
        (b'[{"id": 0} {"id": 1}]', "row 0 .*Expecting ',' or ']'"),
        (b'[{"id": 0}] more', "row 1 .*more text follows"),
        (b'[{"id": Infinity}]', "row 0 .*Infinity is not JSON"),
        (b'[{"id": "\xff"}]', "row 0 .*can't decode byte 0xff"),
        (b"[" * 100_000, "row 0 .*recursion"),
    ],
)
def test_a_damaged_array_is_refused_with_its_row(file, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(json_rows(file(content), FORM))


def test_an_empty_array_has_no_rows(file) -> None:
    assert list(json_rows(file(b" [ \n ] "), FORM)) == []


def test_a_large_array_is_never_held_in_memory(file) -> None:
    path = file(b"[" + b",\n".join(json.dumps({"id": n, "text": "kite " * 100}).encode() for n in range(30_000)) + b"]")
    tracemalloc.start()
    assert sum(1 for _ in json_rows(path, FORM)) == 30_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 15e6
    assert peak < 8e6


# --- lines with tabs


def test_quotation_marks_and_line_ends_of_unicode_are_part_of_a_field(file) -> None:
    rows = list(tab_rows(file(b'\xef\xbb\xbfa\t"b\r\n"c\xe2\x80\xa8d\t\n\nlast')))
    assert rows == [(0, ["a", '"b']), (1, ['"c\u2028d', ""]), (2, [""]), (3, ["last"])]


def test_lines_that_are_no_text_are_unfit_in_their_place(file) -> None:
    assert reasons(tab_rows(file(b"a\tb\n\0\tb\n\xff\tb\nc\td\n"))) == [(1, "row_malformed"), (2, "row_malformed")]


def test_a_file_without_line_ends_does_not_fill_the_memory(file, monkeypatch) -> None:
    monkeypatch.setattr(tables, "LONGEST", 1 << 20)
    with pytest.raises(InputError, match=r"the line at byte 2 is longer than 1 MiB"):
        list(tab_rows(file(b"a\n" + b"b" * (1 << 21))))


def test_lines_are_counted_by_their_ends(file) -> None:
    assert count_lines(file(b"a\nb\nc")) == 2


# --- commas


def test_quoted_fields_hold_commas_line_ends_and_quotation_marks(file) -> None:
    rows = list(csv_rows(file(b'name,text\r\n"a,b","c\nd"\n"say ""hi""",e\n')))
    assert rows == [(0, ["name", "text"]), (1, ["a,b", "c\nd"]), (3, ['say "hi"', "e"])]


def test_a_row_that_breaks_the_quoting_is_unfit_and_the_next_one_is_read(file) -> None:
    rows = list(csv_rows(file(b'"a"b,c\nd,e\n\xff,f\n\0,g\nh,i\n')))
    assert reasons(rows) == [(0, "row_malformed"), (2, "row_malformed"), (3, "row_malformed")]
    assert [row for _, row in rows if not isinstance(row, Unfit)] == [["d", "e"], ["h", "i"]]


@pytest.mark.parametrize("content", [b'a,"b\nc,d\ne,f\n', b'a,"b\nc,d\n"e,f\n'])
def test_a_quotation_mark_that_swallows_rows_is_refused_by_its_line(file, content: bytes) -> None:
    with pytest.raises(InputError, match="line 1: a quotation mark opens a field that does not end as it should"):
        list(csv_rows(file(content)))


# --- parquet


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    images = [{"bytes": bytes([n]) * 9, "path": f"{n}.png"} for n in range(100)]
    texts = [None, *[f"kite {n}" for n in range(1, 100)]]
    parquet.write_table(pa.table({"image": images, "text": texts, "n": range(100), "turns": [["a"]] * 100}), path)
    return path


COLUMNS = {"image": "image", "text": "string", "n": "int", "turns": "list"}


def test_parquet_rows_come_one_by_one_with_absent_values_as_none(table: Path) -> None:
    rows = list(parquet_rows(table, COLUMNS, FORM))
    assert [number for number, _ in rows] == list(range(100))
    assert rows[0][1] == {"image": {"bytes": bytes(9), "path": "0.png"}, "text": None, "n": 0, "turns": ["a"]}
    assert column_names(table) == list(COLUMNS)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({**COLUMNS, "label": "int"}, "column 'label' is missing"),
        ({"image": "image", "text": "string"}, "column 'n' is not known; column 'turns' is not known"),
        ({**COLUMNS, "text": "int"}, "column 'text' holds string, not int"),
        ({**COLUMNS, "turns": "image"}, r"column 'turns' holds list<.*not image.*Found: image, text, n, turns"),
    ],
)
def test_another_schema_is_refused_by_its_columns(table: Path, columns: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        next(parquet_rows(table, columns, FORM))


def test_optional_columns_may_be_missing_and_unread_ones_are_left_out(table: Path) -> None:
    optional = {"text": "string", "label": "int", "turns": "unread"}
    _, row = next(parquet_rows(table, {"image": "image", "n": "int"}, FORM, optional))
    assert list(row) == ["image", "text", "n"]


@pytest.mark.parametrize("damage", [lambda data: data[:200], lambda data: b"", lambda data: data[:-20] + b"PAR1"])
def test_a_parquet_file_cut_short_is_refused_with_its_name(table: Path, damage) -> None:
    table.write_bytes(damage(table.read_bytes()))
    with pytest.raises(InputError, match=r"rows\.parquet row 0 .*cut short or damaged"):
        list(parquet_rows(table, COLUMNS, FORM))
    with pytest.raises(InputError, match=r"rows\.parquet .*cut short or damaged"):
        column_names(table)
