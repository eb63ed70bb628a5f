"""easy-VQA as questions, and as pairs whose fault is known: on invented pictures, and the counts of the real package."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from pyarrow import parquet

from data_prep.forms.facts import known
from data_prep.forms.pairs import DESCRIBED, pairs, said_of
from data_prep.reading.shapes import affirms, centre, contradiction, drawings
from data_prep.rows import Inputs, Row, Skip
from data_prep.sets.easy_vqa import EasyVqa
from data_prep.sets.pairs_small import SmallPairs
from tests.data_prep.drawn import drawing, unpacked, wheel
from tests.data_prep.published import cached
from vlm.contracts.errors import InputError
from vlm.data.branches import conversations
from vlm.data.canonical import TextPart
from vlm.data.shards import ShardSet

ALL = {"wrong_color": 1, "wrong_shape": 1, "wrong_both": 1, "invented": 1}


def test_a_picture_is_one_sample_with_its_questions_as_independent_ones(prepare, tmp_path: Path) -> None:
    train, test = prepare("easy_vqa", unpacked(tmp_path))
    assert [m["counts"]["rows_in"] for m in (train, test)] == [96, 48]
    assert [m["counts"]["samples_out"] for m in (train, test)] == [24, 12]
    sample = ShardSet(tmp_path / "out/easy_vqa/train")[5]
    assert sample.meta["types"] == ["open", "open", "yesno", "yesno"]
    alone = conversations(sample)
    assert len(alone) == 4
    assert all(turns[0].parts[0] == 0 and len(turns) == 2 for turns in alone)  # each shows the picture, none the others


def test_train_and_test_pictures_of_one_number_keep_different_ids(tmp_path: Path) -> None:
    rows = list(EasyVqa("MIT").rows(Inputs({"data": wheel(tmp_path, 3, 3)})))
    assert [row.origin.id for row in rows] == [f"{split}-{n}" for split in ("train", "test") for n in range(3)]
    assert [row.origin.row for row in rows[:3]] == [0, 4, 8]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["is there a teal shape?", "yes", 0], "label_bad"),
        (["is there not a black shape?", "yes", 0], "label_bad"),
        (["what color is the shape?", "teal", 0], "label_bad"),
        (["is there a circle?", "no", 0], "label_bad"),
        (["is there a circle?", "no", 9], "media_missing"),
    ],
)
def test_answers_that_pixels_or_other_answers_deny_are_skipped_with_their_picture(tmp_path, row, reason) -> None:
    rows = list(EasyVqa("MIT").rows(Inputs({"data": wheel(tmp_path, 2, 2, (row,))})))
    (skip,) = [row for row in rows if isinstance(row, Skip) and row.split == "train"]
    assert (skip.reason, skip.rows) == (reason, 1 if reason == "media_missing" else 5)


def test_rows_of_another_form_are_refused(tmp_path: Path) -> None:
    place = wheel(tmp_path, 2, 2, (["is there a circle?", "no", "0"],))
    with pytest.raises(InputError, match=r"train/questions.json row 9: .* is not \[question, answer, picture number\]"):
        list(EasyVqa("MIT").rows(Inputs({"data": place})))


@pytest.mark.parametrize(
    ("question", "answer", "there"),
    [("is there a circle?", "yes", True), ("is no circle present?", "yes", False),
     ("does the image not contain a red shape?", "no", True), ("is there a circle?", "no", False)],
)  # fmt: skip
def test_a_negated_question_turns_its_answer_round(question: str, answer: str, there: bool) -> None:
    assert affirms(question, answer) is there


def test_the_middle_of_a_shape_is_read_from_its_pixels() -> None:
    assert centre(drawing(1), "blue") == (14.5, 20.5)
    assert centre(drawing(0), "black")[0] > 32


# --- pairs in RLHF-V's form


def test_pairs_go_through_a_real_file_of_rlhf_v_and_its_reader(prepare, tmp_path: Path) -> None:
    place = unpacked(tmp_path, train=48)
    manifests = prepare("pairs_small", place, "source.reader.size=100")
    assert sum(m["counts"]["samples_out"] for m in manifests) == 100
    table = parquet.read_table(tmp_path / "data/.cache/made/pairs_small/RLHF-V-Dataset.parquet")
    assert table.column_names == ["ds_name", "image", "text", "origin_dataset", "origin_split", "idx", "image_path"]
    assert set(json.loads(table["text"][0].as_py())) == {"question", "chosen", "rejected"}
    train, val = (ShardSet(tmp_path / "out/pairs_small" / split) for split in ("train", "val"))
    sides = [{shards[n].media[0].sha256 for n in range(len(shards))} for shards in (train, val)]
    assert not sides[0] & sides[1]


def test_the_changed_characters_are_exactly_the_wrong_words(tmp_path: Path) -> None:
    inputs = Inputs({"data": wheel(tmp_path, train=40)}, scratch=tmp_path / "made")
    for row in SmallPairs("MIT", ALL, "full", None).rows(inputs):  # type: ignore[arg-type]
        assert isinstance(row, Row)
        meta, texts = row.meta or {}, {}
        for side, answer in (("chosen", row.chosen), ("rejected", row.rejected)):
            (part,) = answer[0].content  # type: ignore[index]
            assert isinstance(part, TextPart)
            texts[side] = [part.text[start:end] for start, end in meta[f"diff_{side}"]]
        colour, shape = row.chosen[0].content[0].text.removesuffix(".").split()[-2:]  # type: ignore
        right = {"wrong_color": [colour], "wrong_shape": [shape], "wrong_both": [f"{colour} {shape}"], "invented": []}
        assert texts["chosen"] == right[meta["type"]]
        assert len(texts["rejected"]) == 1
        assert all(word not in texts["rejected"][0].split() for word in texts["chosen"])


def test_the_same_pairs_come_each_time_and_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    place = {"data": wheel(tmp_path, train=40)}
    reader = SmallPairs("MIT", ALL, "tiny", None)  # type: ignore[arg-type]
    told = [list(reader.rows(Inputs(place, scratch=tmp_path / name))) for name in ("a", "b")]
    assert told[0] == told[1]
    assert (tmp_path / "a/RLHF-V-Dataset.parquet").read_bytes() == (tmp_path / "b/RLHF-V-Dataset.parquet").read_bytes()
    dry = list(reader.rows(Inputs(place, scratch=tmp_path / "c", dry=True)))
    assert dry == told[0]
    assert not (tmp_path / "c").exists()


def test_kinds_share_the_first_pairs_as_asked(tmp_path: Path) -> None:
    train = list(drawings(Inputs({"data": wheel(tmp_path, train=60)}), "train"))
    rows = pairs(train, {"invented": 2, "open": 1, "yesno": 1}, 80)
    kinds = Counter(json.loads(row["origin_split"])["type"] for row in rows)
    assert kinds == {"invented": 40, "open": 20, "yesno": 20}


def test_mixed_pairs_hold_out_the_pictures_that_the_other_sets_hold_out(prepare, tmp_path: Path) -> None:
    place = unpacked(tmp_path, train=48)
    prepare("pairs_mixed", place, "source.reader.size=160", "source.reader.val_from=36")
    kinds, numbers = Counter(), {}
    for split in ("train", "val"):
        shards = ShardSet(tmp_path / "out/pairs_mixed" / split)
        kinds.update(shards[row].meta["type"] for row in range(len(shards)))
        records = [shards.read(row)[0] for row in range(len(shards))]
        numbers[split] = {int(record.media[0].orig.removesuffix(".png").split("-")[1]) for record in records}
    assert max(numbers["train"]) < 36 <= min(numbers["val"])
    shares = {kind: round(count / 160 * 12) for kind, count in kinds.items()}
    assert shares == {"open": 3, "yesno": 3, "invented": 3, "wrong_color": 1, "wrong_shape": 1, "wrong_both": 1}


# --- the real package


@pytest.fixture(scope="module")
def package() -> Inputs:
    return Inputs({"data": cached("pip", "easy-vqa")})


@pytest.mark.slow
@pytest.mark.published
def test_the_package_has_the_published_counts_and_no_wrong_answer(package: Inputs) -> None:
    counts = {}
    for split in ("train", "test"):
        found = list(drawings(package, split))
        kinds = Counter(question.kind for drawing in found for question in drawing.questions)
        assert [contradiction(drawing) for drawing in found] == [None] * len(found)
        counts[split] = (len(found), kinds["open"], kinds["yesno"], len(known(found)))
    assert counts == {"train": (4000, 10_168, 28_407, 3793), "test": (1000, 2537, 7136, 944)}


@pytest.mark.slow
@pytest.mark.published
def test_the_package_gives_as_many_pairs_as_counted(package: Inputs) -> None:
    train = list(drawings(package, "train"))
    counts = {kind: len(said_of(kind, train)) for kind in ("wrong_color", "wrong_shape", "wrong_both", "invented")}
    assert counts == dict.fromkeys(DESCRIBED, 3793)
    assert (len(said_of("open", train)), len(said_of("yesno", train))) == (10_168, 28_407)
    sizes = [sum(1 for _ in pairs(train, ALL, size)) for size in (256, 5733, None)]  # type: ignore[arg-type]
    assert sizes == [256, 5733, 15_172]
