"""A benchmark's files are checked before anything is asked: there, whole, and of the right version."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.evaluation.readers.written import cell, png, put, put_lines, put_parquet, read, refused
from vlm.contracts.errors import InputError
from vlm.evaluation.readers.hub_tables import ChartQa
from vlm.evaluation.readers.pope import Pope


def folder(path: Path) -> str:
    """POPE's random questions about two pictures."""
    rows = [
        {"question_id": 1, "image": "a.png", "text": "Is there a cat in the image?", "label": "yes"},
        {"question_id": 2, "image": "b.png", "text": "Is there a dog in the image?", "label": "no"},
    ]
    put_lines(path / "coco_pope_random.json", rows)
    for name in ("a.png", "b.png"):
        put(path / "val2014" / name, png())
    return str(path)


def pope(path: Path, **keys) -> Pope:
    return Pope(str(path), ["random"], **keys)


def test_a_missing_table_is_named_and_so_is_the_way_to_it(tmp_path: Path) -> None:
    refused(pope(tmp_path), r"coco_pope_random.json is not there; get the published files again \(key `get`")
    refused(ChartQa(str(tmp_path)), r"holds no data/test-\*.parquet; get the published files again")


def test_missing_pictures_are_counted_before_the_first_question(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "val2014/b.png").unlink()
    with pytest.raises(InputError, match=r"1 of 2 pictures are not there, for example val2014/b.png"):
        next(pope(tmp_path).questions())


def test_a_table_is_held_to_the_checksum_of_the_configuration(tmp_path: Path) -> None:
    folder(tmp_path)
    name = "coco_pope_random.json"
    digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert len(read(pope(tmp_path, checksums={name: digest}))) == 2
    refused(pope(tmp_path, checksums={name: "0" * 64}), f"{name} is another version or damaged: its sha256 is {digest}")
    refused(pope(tmp_path, checksums={"other.json": digest}), "checksums name other.json, but what is read")


def test_a_list_of_checksums_in_the_folder_holds_for_tables_and_pictures(tmp_path: Path) -> None:
    folder(tmp_path)
    names = ["coco_pope_random.json", "val2014/a.png", "val2014/b.png"]
    sums = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names}
    put(tmp_path / "SHA256SUMS", "".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    questions = read(pope(tmp_path))
    assert questions[0].pictures[0].read() == png()
    (tmp_path / "val2014/b.png").write_bytes(png(9))
    with pytest.raises(InputError, match=r"val2014/b.png is another version or damaged"):
        questions[1].pictures[0].read()
    with (tmp_path / names[0]).open("a") as stream:
        stream.write("\n")
    refused(pope(tmp_path), "coco_pope_random.json is another version or damaged")
    put(tmp_path / "SHA256SUMS", "nothing\n")
    refused(pope(tmp_path), "SHA256SUMS is not a list of checksums and names")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "row 3 is no JSON"),
        ("[1]", "row 3 is list, not an object"),
        ('{"question_id": 3}', "row 3: image is missing"),
        ('{"question_id": 3, "image": "a.png", "text": "", "label": "no"}', "row 3: text is empty"),
        ('{"question_id": "x", "image": "a.png", "text": "?", "label": "no"}', "row 3: question_id is 'x', which is str"),
        ('{"question_id": 3, "image": "a.png", "text": "?", "label": "No"}', "row 3: label is 'No'; one of no, yes"),
        ('{"question_id": 2, "image": "a.png", "text": "?", "label": "no"}', "row 3: question random/2 is there a second"),
        ('{"question_id": 3, "image": "c.png", "text": "?", "label": "no"}', "1 of 3 pictures are not there"),
    ],
)  # fmt: skip
def test_a_row_of_another_form_is_named(tmp_path: Path, line: str, told: str) -> None:
    folder(tmp_path)
    with (tmp_path / "coco_pope_random.json").open("a") as stream:
        stream.write(line)
    refused(pope(tmp_path), told)


def test_another_number_of_rows_is_another_version(tmp_path: Path) -> None:
    folder(tmp_path)
    assert len(read(pope(tmp_path, expected={"random": 2}))) == 2
    refused(pope(tmp_path, expected={"random": 3000}), r"2 random, but 3,000 are published.*expected.random=2")
    refused(pope(tmp_path, expected={"radnom": 2}), "expected names radnom; it may name random")


def test_a_parquet_table_that_is_cut_or_lacks_a_column_is_refused(tmp_path: Path) -> None:
    table = put_parquet(tmp_path / "data/test-0.parquet", [{"question": "?", "answer": "4", "image": cell()}])
    refused(ChartQa(str(tmp_path)), r"has no column type \(found question, answer, image\)")
    table.write_bytes(table.read_bytes()[:-20])
    refused(ChartQa(str(tmp_path)), "is no whole parquet table")


def test_pictures_of_parquet_are_read_in_any_order_and_equal_ones_are_one_picture(tmp_path: Path) -> None:
    colours = [number // 2 for number in range(80)]
    rows = [
        {"question": "?", "answer": str(colour), "type": "human_test", "image": cell(colour)} for colour in colours
    ]  # fmt: skip
    put_parquet(tmp_path / "data/test-0.parquet", rows[:50], group=40)
    put_parquet(tmp_path / "data/test-1.parquet", rows[50:], group=40)
    questions = read(ChartQa(str(tmp_path)))
    assert len({question.pictures[0].id for question in questions}) == 40
    for place in (3, 79, 0, 41, 40, 39, 78, 3):
        assert questions[place].pictures[0].read() == png(colours[place])


def test_a_row_without_its_picture_is_named(tmp_path: Path) -> None:
    rows = [{"question": "?", "answer": "4", "type": "human_test", "image": None}]
    put_parquet(tmp_path / "data/test-0.parquet", rows)
    refused(ChartQa(str(tmp_path)), r"test-0.parquet row 1: image holds no picture")


def test_pictures_may_be_bytes_without_a_path(tmp_path: Path) -> None:
    table = pa.table({"question": ["?"], "answer": ["4"], "type": ["human_test"], "image": [png(5)]})
    (tmp_path / "data").mkdir()
    parquet.write_table(table, tmp_path / "data/test-0.parquet")
    assert read(ChartQa(str(tmp_path)))[0].pictures[0].read() == png(5)
