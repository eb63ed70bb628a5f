"""Preference pairs: RLHF-V, RLAIF-V and a user's own, on invented rows in the published form."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from data_prep.pairs import shown
from data_prep.rows import Inputs, Row
from data_prep.sets.preference_jsonl import PreferenceJsonl
from data_prep.sets.rlaif_v import RlaifV
from data_prep.sets.rlhf_v import RlhfV
from tests.data_prep.conftest import encoded, picture
from vlm.contracts.errors import InputError
from vlm.data.canonical import Message, TextPart
from vlm.data.pairs import changed_words
from vlm.data.shards import ShardSet

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
RLHF = pa.schema(
    [("ds_name", pa.string()), ("image", IMAGE), ("text", pa.string()), ("origin_dataset", pa.string()),
     ("origin_split", pa.string()), ("idx", pa.int64()), ("image_path", pa.string())]
)  # fmt: skip
RLAIF = pa.schema(
    [("ds_name", pa.string()), ("image", IMAGE), ("question", pa.string()), ("chosen", pa.string()),
     ("rejected", pa.string()), ("origin_dataset", pa.string()), ("origin_split", pa.string()), ("idx", pa.string()),
     ("image_path", pa.string())]
)  # fmt: skip
COOK = {"question": "What is the cook doing?", "chosen": "He stirs a pot.", "rejected": "He stirs two pots."}
ANSWERED = {"model": "m1", "type": "question_answering"}
ANY_NUMBER = "source.reader.expect_rows=null"


def rlhf_row(number: int, text: Any = None, **changes: Any) -> dict[str, Any]:
    """Three pairs a picture."""
    text = {**COOK, "question": f"What is cook {number} doing?"} if text is None else text
    return {
        "ds_name": "RLHF-V",
        "image": {"bytes": encoded(picture(number // 3, mode="L" if number % 2 else "RGB")), "path": f"{number}.png"},
        "text": text if isinstance(text, str) else json.dumps(text),
        "origin_dataset": "invented",
        "origin_split": json.dumps(ANSWERED),
        "idx": 100 + number,
        "image_path": "not/a/file.jpg",
        **changes,
    }


def rlhf(folder: Path, rows: list[dict[str, Any]], schema: pa.Schema = RLHF) -> Path:
    folder.mkdir(exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows, schema), folder / "RLHF-V-Dataset.parquet")
    return folder


def skipped(out: Path) -> dict[int, str]:
    """row -> reason, over all splits."""
    lines = [line for path in sorted(out.glob("*/skipped.jsonl")) for line in path.read_text().splitlines()]
    return {entry["row"]: entry["reason"] for entry in map(json.loads, lines)}


# --- RLHF-V


def test_rlhf_v_gives_the_pair_behind_its_json_in_a_string(prepare, tmp_path: Path) -> None:
    manifests = prepare("rlhf_v", rlhf(tmp_path / "in", [rlhf_row(n) for n in range(60)]), ANY_NUMBER)
    assert sum(m["counts"]["samples_out"] for m in manifests) == 60
    assert manifests[0]["license"]["flags"] == {"noncommercial": ["CC-BY-NC-4.0"], "model_output": ["CC-BY-NC-4.0"]}
    sample = ShardSet(tmp_path / "out/rlhf_v/train")[0]
    assert sample.turns[0].parts == (0, "What is cook 0 doing?")
    assert (sample.turns[1].parts, sample.rejected) == (("He stirs a pot.",), "He stirs two pots.")
    assert (sample.meta["diff_chosen"], sample.meta["diff_rejected"]) == ([[9, 14]], [[9, 17]])
    assert {name: sample.meta[name] for name in ANSWERED} == ANSWERED


def test_all_pairs_about_one_picture_are_in_one_split(prepare, tmp_path: Path) -> None:
    prepare("rlhf_v", rlhf(tmp_path / "in", [rlhf_row(n) for n in range(90)]), ANY_NUMBER, "source.holdout.every=3")
    sides = []
    for split in ("train", "val"):
        shards = ShardSet(tmp_path / "out/rlhf_v" / split)
        sides.append({shards[n].media[0].sha256 for n in range(len(shards))})
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]


def test_another_number_of_pairs_is_refused_until_it_is_accepted(prepare, tmp_path: Path) -> None:
    folder = rlhf(tmp_path / "in", [rlhf_row(n) for n in range(60)])
    with pytest.raises(InputError, match=r"expected 5733 pairs, found 60; .*pass source.reader.expect_rows=60"):
        prepare("rlhf_v", folder)
    assert sum(m["counts"]["rows_in"] for m in prepare("rlhf_v", folder, "source.reader.expect_rows=60")) == 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": json.dumps({**COOK, "score": "1"})}, r"row 4 \(from 0\): text has .*exactly"),
        (
            {"text": json.dumps({"question": "a", "chosen": "b"})},
            r"row 4 \(from 0\): text has \['chosen', 'question'\]",
        ),
        ({"text": '["a", "b", "c"]'}, r"row 4 \(from 0\): text has list"),
        ({"origin_split": "{'model': 'm1', 'type': 'x'}"}, r"row 4 \(from 0\): origin_split is .* not JSON"),
        ({"text": "{'question': __import__('os').abort()}"}, r"row 4 \(from 0\): text is .* not JSON"),
    ],
)
def test_json_of_another_form_is_refused_and_never_evaluated(prepare, tmp_path, changes, message) -> None:
    rows = [rlhf_row(n) for n in range(4)] + [rlhf_row(4, **changes)]
    with pytest.raises(InputError, match=message):
        prepare("rlhf_v", rlhf(tmp_path / "in", rows), ANY_NUMBER)


def test_no_json_that_cannot_be_parsed_is_allowed_unless_told_otherwise(prepare, tmp_path: Path) -> None:
    folder = rlhf(tmp_path / "in", [rlhf_row(0), rlhf_row(1, '{"question": "wha'), *map(rlhf_row, range(2, 30))])
    with pytest.raises(InputError, match=r"row_malformed: 1 of 30 rows; 0 percent are allowed"):
        prepare("rlhf_v", folder, ANY_NUMBER)
    prepare("rlhf_v", folder, ANY_NUMBER, "source.budget.row_malformed=5")
    assert skipped(tmp_path / "out/rlhf_v") == {1: "row_malformed"}


def test_equal_and_empty_answers_and_missing_pictures_are_skipped_by_name(prepare, tmp_path: Path) -> None:
    faults = [
        rlhf_row(60, {**COOK, "rejected": " He  stirs a\npot. "}),
        rlhf_row(61, {**COOK, "chosen": " \n"}),
        rlhf_row(62, {**COOK, "question": ""}),
        rlhf_row(63, image=None),
        rlhf_row(64, image={"bytes": encoded(picture(64))[:50], "path": "5.png"}),
    ]
    budgets = [f"++source.budget.{name}=50" for name in ("pair_equal", "text_empty", "media_missing")]
    budgets += ["++source.budget.media_truncated=50", "++source.budget.media_undecodable=50"]
    folder = rlhf(tmp_path / "in", [*map(rlhf_row, range(60)), *faults])
    prepare("rlhf_v", folder, ANY_NUMBER, *budgets)
    found = skipped(tmp_path / "out/rlhf_v")
    assert [found[n] for n in range(60, 64)] == ["pair_equal", "text_empty", "text_empty", "media_missing"]
    assert found[64] in ("media_truncated", "media_undecodable")


@pytest.mark.parametrize("damage", ["other column", "idx as text", "cut short", "no file"])
def test_files_of_another_form_are_refused(prepare, tmp_path: Path, damage: str) -> None:
    folder = rlhf(tmp_path / "in", [rlhf_row(n) for n in range(3)])
    path = folder / "RLHF-V-Dataset.parquet"
    table = parquet.read_table(path)
    if damage == "other column":
        parquet.write_table(table.rename_columns(["answer" if n == "text" else n for n in table.column_names]), path)
    elif damage == "idx as text":
        parquet.write_table(table.set_column(5, "idx", pa.array(["0", "1", "2"])), path)
    elif damage == "cut short":
        path.write_bytes(path.read_bytes()[:-300])
    else:
        path.unlink()
    with pytest.raises(InputError, match=r"RLHF-V-Dataset\.parquet"):
        prepare("rlhf_v", folder, ANY_NUMBER)


@pytest.mark.parametrize(
    ("chosen", "rejected", "spans"),
    [
        ("He stirs a pot.", "He stirs two pots.", (["a pot"], ["two pots"])),
        ("A clock and two books.", "A clock, two books and a cat.", (["and"], [",", "and a cat"])),
        ("There is one teal kite.", "There is one teal kite.  ", ([], [])),
        ("Nobody's hat", "Somebody's hat", (["Nobody's"], ["Somebody's"])),
    ],
)
def test_changed_words_are_marked_in_both_answers(chosen: str, rejected: str, spans) -> None:
    found = changed_words(chosen, rejected)
    assert tuple([text[a:b] for a, b in side] for text, side in zip((chosen, rejected), found, strict=True)) == spans


# --- RLAIF-V


def rlaif_row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "ds_name": "RLAIF-V",
        "image": {"bytes": encoded(picture(number // 4), "JPEG"), "path": f"{number // 4}.jpg"},
        "question": "Describe the street.",
        "chosen": f"A wet street with {number} cars.",
        "rejected": "A dry street with a bus.",
        "origin_dataset": "invented",
        "origin_split": json.dumps(ANSWERED),
        "idx": f"7/{number}",
        "image_path": f"{number // 4}.jpg",
        **changes,
    }


def rlaif(folder: Path, parts: list[list[dict[str, Any]]], schema: pa.Schema = RLAIF) -> Path:
    folder.mkdir(exist_ok=True)
    for number, rows in enumerate(parts):
        parquet.write_table(pa.Table.from_pylist(rows, schema), folder / f"RLAIF-V-Dataset_{number:03d}.parquet")
    return folder


def test_rlaif_v_reads_its_files_by_number(tmp_path: Path) -> None:
    folder = rlaif(tmp_path / "in", [[rlaif_row(4 * part + n) for n in range(4)] for part in range(11)])
    rows = list(RlaifV("CC-BY-NC-4.0").rows(Inputs({"from": folder})))
    assert [row.origin.id for row in rows] == [f"7/{number}" for number in range(44)]
    assert (rows[5].origin.file, rows[5].origin.row) == ("RLAIF-V-Dataset_001.parquet", 1)
    assert isinstance(rows[0], Row)
    assert rows[0].meta == {"origin_dataset": "invented", **ANSWERED}


def test_rlaif_v_drops_the_publishers_own_log_probabilities(tmp_path: Path) -> None:
    schema = RLAIF.append(pa.field("logps", pa.string()))
    folder = rlaif(tmp_path / "in", [[rlaif_row(n, logps='{"logps": [1, 2]}') for n in range(4)]], schema)
    rows = list(RlaifV("CC-BY-NC-4.0").rows(Inputs({"from": folder})))
    assert len(rows) == 4
    assert "logps" not in str(rows[0])


def test_rlaif_v_never_makes_up_a_question(prepare, tmp_path: Path) -> None:
    rows = [rlaif_row(n) for n in range(80)] + [rlaif_row(80, question=""), rlaif_row(81, question=None)]
    budget = "++source.budget.text_empty=50"
    prepare("rlaif_v", rlaif(tmp_path / "in", [rows]), budget)
    assert skipped(tmp_path / "out/rlaif_v") == {80: "text_empty", 81: "text_empty"}


def test_rlaif_v_tells_another_number_of_pairs(prepare, tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        prepare("rlaif_v", rlaif(tmp_path / "in", [[rlaif_row(n) for n in range(120)]]))
    assert "rlaif_v has 120 rows, its page says 83,132" in caplog.text


def test_rlaif_v_refuses_a_missing_part(tmp_path: Path) -> None:
    folder = rlaif(tmp_path / "in", [[rlaif_row(n)] for n in range(3)])
    (folder / "RLAIF-V-Dataset_001.parquet").unlink()
    with pytest.raises(InputError, match=r"lacks RLAIF-V-Dataset_001.parquet"):
        list(RlaifV("CC-BY-NC-4.0").rows(Inputs({"from": folder})))


def test_an_index_of_the_other_sets_type_is_refused(tmp_path: Path) -> None:
    number = [pa.field("idx", pa.int64()) if field.name == "idx" else field for field in RLAIF]
    folder = rlaif(tmp_path / "in", [[rlaif_row(0, idx=7)]], pa.schema(number))
    with pytest.raises(InputError, match=r"column 'idx' holds int64, not string"):
        list(RlaifV("CC-BY-NC-4.0").rows(Inputs({"from": folder})))
    with pytest.raises(InputError, match=r"RLHF-V-Dataset.parquet is missing"):
        list(RlhfV("CC-BY-NC-4.0", None).rows(Inputs({"from": folder})))


@pytest.mark.parametrize(
    ("inside", "beside", "name"),
    [
        ("7.jpg", "coco/train2014/COCO_train2014_000000000025.jpg", "coco/train2014/COCO_train2014_000000000025.jpg"),
        ("000000000025.jpg", "COCO_val2014_000000000030.jpg", "000000000025.jpg"),
        ("7.jpg", "not/a/file.jpg", "7.jpg"),
        (None, "not/a/file.jpg", "not/a/file.jpg"),
        (None, None, ""),
    ],
)
def test_a_picture_goes_by_whichever_name_tells_its_coco_number(inside, beside, name: str) -> None:
    assert shown({"bytes": b"data", "path": inside}, beside).name == name


# --- a user's own


def parts(message: Message) -> tuple[str | int, ...]:
    return tuple(part.text if isinstance(part, TextPart) else part.i for part in message.content)


def own(folder: Path, rows: list[Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(4):
        (folder / f"{number}.png").write_bytes(encoded(picture(number)))
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def pair(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "prompt": f"<image>\nHow many kites in {number}?",
        "chosen": "Three.",
        "rejected": "Four.",
        "images": [f"{number % 4}.png"],
        **changes,
    }


def test_own_pairs_come_from_a_prompt_or_from_turns(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Look at <image> and <image>."},
        {"role": "assistant", "content": "Two skies."},
        {"role": "user", "content": "Which has more kites?"},
    ]
    rows = [
        pair(0),
        {"messages": turns, "chosen": "The first.", "rejected": "The second.", "images": ["0.png", "1.png"]},
        {"prompt": "Name a bird.", "chosen": [{"role": "assistant", "content": "A swift."}], "rejected": "A car."},
    ]
    reader = PreferenceJsonl("LicenseRef-Own")
    found = [row for row in reader.rows(Inputs({"from": own(tmp_path / "in", rows)})) if isinstance(row, Row)]
    assert [parts(message) for message in found[0].messages or []] == [(0, "How many kites in 0?")]
    assert [message.role for message in found[1].messages or []] == ["user", "assistant", "user"]
    assert parts((found[1].messages or [])[0]) == ("Look at ", 0, " and ", 1, ".")
    answers = [[parts(message) for message in (*(row.chosen or ()), *(row.rejected or ()))] for row in found]
    assert answers[1:] == [[("The first.",), ("The second.",)], [("A swift.",), ("A car.",)]]
    assert [len(row.pictures) for row in found] == [1, 2, 0]


def test_each_fault_of_own_pairs_is_skipped_by_its_name(prepare, tmp_path: Path) -> None:
    faults: list[tuple[Any, str]] = [
        ("{", "row_malformed"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c", "score": NaN}', "row_malformed"),
        ({"prompt": "a", "chosen": "b"}, "row_malformed"),
        (pair(0, chosen=3), "row_malformed"),
        (pair(0, images="a.png", chosen=["x", "y"]), "row_malformed"),
        (pair(0, rejected="Three. "), "pair_equal"),
        (pair(0, rejected=""), "text_empty"),
        (pair(0, prompt="<image>"), "text_empty"),
        (pair(0, chosen="<image> Three."), "placeholder_mismatch"),
        (pair(0, prompt="<image><image> What?"), "placeholder_mismatch"),
        (pair(0, images=[]), "media_missing"),
        (pair(0, images=["9.png"]), "media_missing"),
        ({"messages": [{"role": "assistant", "content": "a"}], "chosen": "b", "rejected": "c"}, "turns_bad"),
        (pair(1), "dup_exact"),
    ]
    rows = [pair(number) for number in range(40)] + [row for row, _ in faults]
    budget = [
        f"source.budget.{name}=50"
        for name in ("row_malformed", "pair_equal", "text_empty", "placeholder_mismatch", "media_missing", "turns_bad")
    ]
    prepare("preference_jsonl", own(tmp_path / "in", rows), *budget)
    expected = {40 + number: reason for number, (_, reason) in enumerate(faults)}
    assert skipped(tmp_path / "out/preference_jsonl") == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"question": "a", "chosen": "b", "rejected": "c"}],
            r'line 1 needs one of "prompt" and "messages"; each line',
        ),
        ([{"prompt": "a", "answer": "b"}], r'has no "chosen", has no "rejected"; each line is'),
        (["chosen\trejected"], r"begins with 'chosen"),
        ([pair(0, images=["../0.png"])], "leaves the folder"),
        ([pair(0, images=["https://a.example/0.png"])], "is an address"),
    ],
)
def test_own_pairs_of_another_form_are_refused_with_the_right_one(prepare, tmp_path, rows, message) -> None:
    with pytest.raises(InputError, match=message):
        prepare("preference_jsonl", own(tmp_path / "in", rows))


def test_one_file_of_pairs_is_needed(prepare, tmp_path: Path) -> None:
    folder = own(tmp_path / "in", [pair(0)])
    (folder / "more.jsonl").write_text("{}")
    with pytest.raises(InputError, match=r"exactly one file of rows .*more.jsonl, pairs.jsonl"):
        prepare("preference_jsonl", folder)


def test_a_pair_that_stands_the_other_way_round_too_is_a_contradiction(prepare, tmp_path: Path) -> None:
    rows = [pair(n) for n in range(20)] + [pair(3, chosen="Four.", rejected="Three.")]
    manifests = prepare("preference_jsonl", own(tmp_path / "in", rows), "source.budget.pair_contradiction=50")
    told = sum((m["counts"]["skipped"].get("pair_contradiction", 0) for m in manifests), 0)
    assert told, manifests[0]["counts"]
