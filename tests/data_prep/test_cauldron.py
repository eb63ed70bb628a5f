"""The Cauldron's form: several pictures, many questions, rows that are cut, and subsets whose pictures are elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from data_prep.merge import merge
from tests.data_prep.conftest import encoded, picture, verify_shards
from vlm.contracts.errors import InputError
from vlm.contracts.places import config_dir
from vlm.data.canonical import Record
from vlm.data.shards import ShardSet

WORDS = ["++source.holdout=null", "++source.expected={train: null}", "against=[]"]
WORDS += [f"++source.budget.{reason}=100" for reason in ("text_empty", "media_missing", "media_undecodable")]
IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
TEXTS = pa.list_(pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())]))


def pairs(*texts: str) -> list[dict[str, str]]:
    return [{"user": f"Q {text}?", "assistant": text, "source": "Invented"} for text in texts]


def row(*seeds: int, texts: list[dict[str, str]] | None = None, path: str | None = None) -> dict[str, Any]:
    images = [{"bytes": None if path else encoded(picture(seed), "JPEG"), "path": path} for seed in seeds]
    return {"images": images, "texts": pairs("A.") if texts is None else texts}


def write(home: Path, subset: str, rows: list[dict[str, Any]]) -> Path:
    (home / subset).mkdir(parents=True, exist_ok=True)
    table = pa.table({"images": pa.array([r["images"] for r in rows], IMAGES), "texts": pa.array([r["texts"] for r in rows], TEXTS)})  # fmt: skip
    parquet.write_table(table, home / subset / "train-00000-of-00001-aa.parquet")
    return home


@pytest.fixture
def made(prepare: Callable, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], list[Record]]]:
    def run(folder: Path, *words: str) -> tuple[dict[str, Any], list[Record]]:
        (manifest,) = prepare("the_cauldron", folder, *WORDS, *words)
        split = tmp_path / "out" / "the_cauldron" / "train"
        assert verify_shards(split) == []
        shards = ShardSet(split)
        return manifest, [shards.read(number)[0] for number in range(len(shards))]

    return run


def answers(record: Record) -> list[str]:
    return [turn.text for turn in record.messages or () if turn.role == "assistant"]


def test_all_pictures_stand_in_front_and_all_questions_in_order(made: Callable, tmp_path: Path) -> None:
    home = write(tmp_path / "c", "nlvr2", [row(1, 2, texts=pairs("one", "", "two"))])
    manifest, (record,) = made(home)
    assert answers(record) == ["one", "two"]
    assert [len(turn.content) for turn in record.messages] == [3, 1, 1, 1]
    assert [medium.member for medium in record.media] == ["00.jpg", "01.jpg"]
    assert (record.license, record.meta) == ("CC-BY-4.0", {"subset": "nlvr2", "sources": ["Invented"]})
    assert manifest["counts"]["repaired"] == {"answer_empty": 1}


def test_a_long_row_is_cut_between_questions_and_the_counts_still_add_up(made: Callable, tmp_path: Path) -> None:
    broken = {"images": [{"bytes": b"no picture", "path": None}], "texts": pairs(*"abcde")}
    home = write(tmp_path / "c", "clevr", [row(1, texts=pairs(*"abcde")), row(2), broken])
    manifest, records = made(home, "++source.reader.max_pairs=2")
    assert [answers(record) for record in records] == [["a", "b"], ["c", "d"], ["e"], ["A."]]
    assert all(len(record.media) == 1 for record in records)
    counts = manifest["counts"]
    assert (counts["rows_in"], counts["rows_split"], counts["samples_out"]) == (3, 4, 4)
    assert counts["skipped"] == {"media_undecodable": 3}


def test_a_cut_row_survives_parts(prepare: Callable, tmp_path: Path) -> None:
    home = write(tmp_path / "c", "clevr", [row(n, texts=pairs(*"abcde")) for n in range(30)])
    words = [*WORDS, "++source.reader.max_pairs=2"]
    (whole,) = prepare("the_cauldron", home, *words, f"out={tmp_path / 'whole'}")
    for part in ("0/2", "1/2"):
        prepare("the_cauldron", home, *words, f"part={part}")
    (manifest,) = merge([tmp_path / "out" / "the_cauldron"], tmp_path / "merged")
    assert manifest["sha256"] == whole["sha256"]


def test_questions_can_be_shuffled_by_a_hash(made: Callable, tmp_path: Path) -> None:
    home = write(tmp_path / "c", "clevr", [row(1, texts=pairs(*"abcdefgh"))])
    found = answers(made(home, "++source.reader.shuffle_turns=true")[1][0])
    assert found != sorted(found) == list("abcdefgh")


def test_pictures_that_are_paths_alone_need_a_root_or_the_subset_is_left_out(made: Callable, tmp_path: Path) -> None:
    home = write(tmp_path / "c", "okvqa", [row(1, path="train/1.jpg"), row(1, path="train/2.jpg")])
    write(home, "vsr", [row(3)])
    with pytest.raises(InputError, match=r"okvqa: .*roots\.okvqa=DIR"):
        made(home)
    assert len(made(home, "++source.reader.without=[okvqa]")[1]) == 1


def test_a_root_gives_them_and_what_is_not_in_it_is_counted(made: Callable, tmp_path: Path) -> None:
    home = write(tmp_path / "c", "okvqa", [row(1, path="train/1.jpg"), row(1, path="train/2.jpg")])
    (tmp_path / "coco" / "train").mkdir(parents=True)
    (tmp_path / "coco" / "train" / "1.jpg").write_bytes(encoded(picture(5), "JPEG"))
    manifest, (record,) = made(home, f"++source.reader.roots={{okvqa: {tmp_path / 'coco'}}}")
    assert record.media[0].orig == "train/1.jpg"
    assert manifest["counts"]["skipped"] == {"media_missing": 1}


def test_a_subset_without_a_licence_is_refused_and_an_unknown_one_is_no_permission(
    made: Callable, tmp_path: Path
) -> None:
    home = write(tmp_path / "c", "new_subset", [row(1)])
    with pytest.raises(InputError, match="new_subset, whose licence nobody has told"):
        made(home)
    settings = yaml.safe_load((config_dir() / "source" / "the_cauldron.yaml").read_text("utf-8"))
    named = settings["reader"]["licenses"]
    assert len(named) == 50
    assert set(named.values()) <= set(settings["licenses"])


def test_rows_without_text_or_picture_are_skipped_by_name(made: Callable, tmp_path: Path) -> None:
    home = write(tmp_path / "c", "vsr", [row(1, texts=[]), row(), row(2)])
    assert json.dumps(made(home)[0]["counts"]["skipped"]) == '{"media_missing": 1, "text_empty": 1}'
