"""SmolTalk's published parquet files in their own form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from data_prep.rows import Inputs, Row, Skip
from data_prep.sets.smoltalk import SmolTalk
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Turn
from vlm.data.shards import ShardSet

MESSAGES = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))
FORM = pa.schema([("messages", MESSAGES), ("source", pa.string())])
LICENCES = {"smol-rewrite": "Apache-2.0", "metamathqa-50k": "MIT"}


def talk(*texts: str | None, system: str | None = None, source: str | None = "smol-rewrite") -> dict[str, Any]:
    """Question, answer, question, answer …"""
    start = [] if system is None else [{"role": "system", "content": system}]
    turns = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]
    return {"messages": start + turns, "source": source}


def write(folder: Path, name: str, rows: list[dict[str, Any]], schema: pa.Schema = FORM) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows, schema), folder / name)
    return folder / name


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Twenty training rows in two files, five test rows."""
    home = tmp_path / "published"
    rows = [talk(f"Name colour {number}.", f"Colour {number}.") for number in range(20)]
    write(home / "data/all", "train-00000-of-00002.parquet", rows[:12])
    write(home / "data/all", "train-00001-of-00002.parquet", rows[12:])
    write(home / "data/all", "test-00000-of-00001.parquet", [talk(f"Test {n}?", "Yes.") for n in range(5)])
    return home


def read(folder: Path, rows: list[dict[str, Any]], schema: pa.Schema = FORM) -> list[Row | Skip]:
    write(folder / "part", "train-00000-of-00001.parquet", rows, schema)
    write(folder / "part", "test-00000-of-00001.parquet", [])
    return list(SmolTalk("part", ["numina-cot-100k"], LICENCES).rows(Inputs({"from": folder})))


def test_both_splits_are_read_file_after_file_each_talk_with_its_source(
    prepare, published: Path, tmp_path: Path
) -> None:
    manifests = prepare("smoltalk", published)
    counts = {manifest["split"]: manifest["counts"]["samples_out"] for manifest in manifests}
    assert counts == {"train": 20, "test": 5}
    train = ShardSet(tmp_path / "out" / "smoltalk" / "train")
    assert [train[number].turns[0].parts[0] for number in range(20)] == [f"Name colour {n}." for n in range(20)]
    record = train.read(13)[0]
    assert (record.src.file, record.src.row) == ("train-00001-of-00002.parquet", 1)
    assert (record.media, record.meta, record.license) == ([], {"source": "smol-rewrite"}, "Apache-2.0")
    assert {file["file"] for file in manifests[0]["source"]} == {
        "data/all/train-00000-of-00002.parquet",
        "data/all/train-00001-of-00002.parquet",
        "data/all/test-00000-of-00001.parquet",
    }


def test_each_talk_has_the_licence_of_its_source(prepare, published: Path) -> None:
    rows = [talk("One?", "Yes.", source=source) for source in ("smol-rewrite", "metamathqa-50k", "openhermes-100k")]
    rows += [talk("Two?", "Yes.", source="explore-instruct-rewriting")]
    write(published / "data/all", "train-00001-of-00002.parquet", rows)
    licence = prepare("smoltalk", published)[0]["license"]
    assert licence["counts"] == {"Apache-2.0": 13, "CC-BY-NC-4.0": 1, "LicenseRef-unknown": 1, "MIT": 1}
    assert licence["flags"]["noncommercial"] == ["CC-BY-NC-4.0"]


def test_a_source_without_a_licence_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 1 .*'new-part' has no licence.*source.reader.licenses.new-part="):
        read(tmp_path, [talk("One?", "Yes."), talk("Two?", "Yes.", source="new-part")])


def test_a_source_can_be_left_out_and_is_counted(tmp_path: Path) -> None:
    rows = read(tmp_path, [talk("One?", "Yes."), talk("2 + 2?", "4", source="numina-cot-100k")])
    assert [row.reason if isinstance(row, Skip) else row.license for row in rows] == ["Apache-2.0", "excluded"]


def test_system_turns_and_tool_calls_in_text_stay_as_they_are(prepare, published: Path, tmp_path: Path) -> None:
    call = '<tool_call>[{"name": "add", "arguments": {"a": 1}}]</tool_call>'
    write(published / "data/all", "test-00000-of-00001.parquet", [talk("Add 1.", call, system="You have tools.")])
    prepare("smoltalk", published)
    assert ShardSet(tmp_path / "out" / "smoltalk" / "test")[0].turns == (
        Turn("system", ("You have tools.",)),
        Turn("user", ("Add 1.",)),
        Turn("assistant", (call,)),
    )


def test_a_placeholder_is_text_where_there_are_no_pictures(tmp_path: Path) -> None:
    (row,) = read(tmp_path, [talk("What does <image>\n mean?", "<image> shows a picture.")])
    assert isinstance(row, Row)
    assert row.messages is not None
    assert [part.text for message in row.messages for part in message.content if part.type == "text"] == [
        "What does <image>\n mean?",
        "<image> shows a picture.",
    ]
    assert row.repaired == ()


def test_each_fault_is_skipped_by_its_name(prepare, published: Path, tmp_path: Path) -> None:
    faults = [
        (talk("One?", " "), "text_empty"),
        (talk("", "Yes."), "text_empty"),
        (talk("One?"), "turns_bad"),
        (talk(), "turns_bad"),
        (talk("One?", None), "row_malformed"),
        (talk("One?", "Yes.", source=None), "row_malformed"),
        ({"messages": None, "source": "smol-rewrite"}, "row_malformed"),
        (talk("word " * 30_000, "Yes."), "text_long"),
    ]
    write(published / "data/all", "train-00001-of-00002.parquet", [fault for fault, _ in faults])
    loose = [f"++source.budget.{reason}=20" for reason in {reason for _, reason in faults}]
    prepare("smoltalk", published, *loose)
    lines = (tmp_path / "out" / "smoltalk" / "train" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in lines] == [reason for _, reason in faults]


def test_an_unknown_role_is_refused_with_its_row(tmp_path: Path) -> None:
    rows = [talk("One?", "Yes."), {"messages": [{"role": "tool", "content": "x"}], "source": "smol-rewrite"}]
    with pytest.raises(InputError, match=r"train-00000-of-00001.parquet row 1 .*role 'tool' is unknown"):
        read(tmp_path, rows)


def test_score_columns_go_to_meta_and_a_part_without_sources_is_one(tmp_path: Path) -> None:
    schema = pa.schema([("messages", MESSAGES), ("quality", pa.string()), ("reward_model_score", pa.float64())])
    rows = [talk("One?", "Yes.") | {"quality": "good", "reward_model_score": 0.5}]
    home = tmp_path / "data" / "smol-rewrite"
    write(home, "train-00000-of-00001.parquet", rows, schema)
    write(home, "test-00000-of-00001.parquet", [], schema)
    (row,) = SmolTalk("data/smol-rewrite", [], LICENCES).rows(Inputs({"from": tmp_path}))
    assert isinstance(row, Row)
    assert row.meta == {"source": "smol-rewrite", "quality": "good", "reward_model_score": 0.5}
    assert row.license == "Apache-2.0"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (pa.schema([("conversations", MESSAGES), ("source", pa.string())]), "column 'messages' is missing"),
        (pa.schema([("messages", pa.string()), ("source", pa.string())]), "'messages' holds string, not list"),
        (pa.schema([("messages", MESSAGES), ("source", pa.int64())]), "'source' holds int64, not string"),
        (pa.schema([*FORM, ("label", pa.string())]), "'label' is not known"),
    ],
)
def test_a_file_of_another_form_is_refused_by_its_columns(tmp_path: Path, schema: pa.Schema, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, [], schema)


def test_a_missing_file_among_the_numbered_ones_is_refused(prepare, published: Path) -> None:
    path = published / "data/all" / "train-00000-of-00002.parquet"
    path.unlink()
    with pytest.raises(InputError, match=r"all of train-00000-of-0000N.parquet, found: train-00001-of-00002.parquet"):
        prepare("smoltalk", published)
    with pytest.raises(InputError, match=r"found: none.*source.reader.under=FOLDER"):
        prepare("smoltalk", published, "source.reader.under=data")


def test_a_file_cut_short_is_refused_by_name(prepare, published: Path) -> None:
    path = published / "data/all" / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"train-00001-of-00002.parquet .*cut short"):
        prepare("smoltalk", published)
