"""Which evaluation pictures a model was trained on, by which sign, and what is left of its score without them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.data_prep.small_splits import Entry, jpeg, photograph, png, split
from vlm.contracts.benchmark import Scored
from vlm.contracts.errors import InputError
from vlm.data.near_hashes import NearHashes
from vlm.data.pictures import PictureError
from vlm.evaluation.contamination import report
from vlm.evaluation.intervals import wilson
from vlm.evaluation.training_pictures import KEPT, Seen, TrainingPictures

WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs of training; that of row 7 is one of COCO's."""
    names = ["coco/train2017/000000310196.jpg" if seed == 7 else f"{seed}.jpg" for seed in range(12)]
    entries = [Entry([(jpeg(photograph(seed, WIDTH, HEIGHT)), name)]) for seed, name in enumerate(names)]
    return split(tmp_path_factory.mktemp("data") / "boats/train", entries)


@pytest.fixture(scope="module")
def pictures(trained: Path) -> TrainingPictures:
    return TrainingPictures([trained])


def key(row: int, set: str = "boats") -> str:
    return f"{set}-{row:010d}"


def changed(kind: str, seed: int) -> bytes:
    picture = photograph(seed, WIDTH, HEIGHT)
    if kind == "re-encoded":
        return jpeg(picture, 40)
    if kind == "smaller":
        return jpeg(picture.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.LANCZOS))
    if kind == "larger":
        return png(picture.resize((WIDTH * 2, HEIGHT * 2), Image.Resampling.BICUBIC))
    if kind == "cropped by a pixel":
        return png(picture.crop((1, 1, WIDTH - 1, HEIGHT - 1)))
    return jpeg(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))


def test_the_same_file_is_found_by_its_bytes(pictures: TrainingPictures) -> None:
    assert pictures.find("anything.jpg", jpeg(photograph(3, WIDTH, HEIGHT))) == Seen("bytes", "boats/train", key(3))


def test_the_same_pixels_in_another_file_are_found(pictures: TrainingPictures) -> None:
    decoded = Image.open(BytesIO(jpeg(photograph(3, WIDTH, HEIGHT))))
    assert pictures.find("a.png", png(decoded)) == Seen("pixels", "boats/train", key(3))


def test_grey_pixels_are_equal_however_many_channels_tell_them(tmp_path: Path) -> None:
    grey = photograph(1).convert("L")
    trained = split(tmp_path / "x/train", [Entry([(jpeg(grey), "1.jpg")])], near=False)
    decoded = Image.open(BytesIO(jpeg(grey))).convert("RGB")
    assert TrainingPictures([trained]).find("a.png", png(decoded)) == Seen("pixels", "x/train", key(0, "x"))


@pytest.mark.parametrize("kind", ["re-encoded", "smaller", "larger", "cropped by a pixel", "mirrored"])
def test_a_changed_copy_is_found_by_its_looks(pictures: TrainingPictures, kind: str) -> None:
    assert pictures.find("a.jpg", changed(kind, 5)) == Seen("looks", "boats/train", key(5))


def test_another_picture_is_not_found(pictures: TrainingPictures) -> None:
    assert [pictures.find("a.jpg", jpeg(photograph(seed))) for seed in range(100, 160)] == [None] * 60


def test_cocos_pictures_are_found_by_their_number_in_every_year(pictures: TrainingPictures, trained: Path) -> None:
    other = jpeg(photograph(99))
    assert pictures.find("COCO_val2014_000000310196.jpg", other) == Seen("id", "boats/train", key(7))
    assert pictures.find("val2014/COCO_val2014_000000310197.jpg", other) is None
    assert TrainingPictures([trained], coco=False).find("COCO_val2014_000000310196.jpg", other) is None


def test_equal_hashes_are_not_enough(tmp_path: Path) -> None:
    """The same frame on another ground: one hash, two pictures."""

    def diagram(level: int) -> bytes:
        picture = Image.new("L", (256, 256), level)
        ImageDraw.Draw(picture).rectangle((60, 60, 200, 190), outline=level - 40, width=12)
        return png(picture)

    trained = TrainingPictures([split(tmp_path / "diagrams/train", [Entry([(diagram(250), "a.png")])])])
    assert trained.find("b.png", diagram(225)) is None
    assert trained.find("b.png", diagram(248)) is not None


def test_looks_decide_nothing_about_sets_of_drawings(tmp_path: Path) -> None:
    entries = [Entry([(jpeg(photograph(seed, WIDTH, HEIGHT)), f"{seed}.jpg")]) for seed in range(3)]
    trained = TrainingPictures([split(tmp_path / "digits/train", entries, near=False)])
    assert trained.find("a.jpg", changed("re-encoded", 2)) is None
    decoded = Image.open(BytesIO(jpeg(photograph(2, WIDTH, HEIGHT))))
    assert trained.find("a.png", png(decoded)) == Seen("pixels", "digits/train", key(2, "digits"))


def test_every_picture_of_a_row_counts(tmp_path: Path) -> None:
    entry = Entry([(jpeg(photograph(seed, WIDTH, HEIGHT)), f"{seed}.jpg") for seed in range(3)])
    pictures = TrainingPictures([split(tmp_path / "comics/train", [Entry([]), entry])])
    assert len(pictures) == 3
    assert {pictures.find("a.jpg", changed("smaller", seed)) for seed in range(3)} == {
        Seen("looks", "comics/train", key(1, "comics"))
    }


def test_only_the_rows_that_were_read_count(trained: Path) -> None:
    copies = [jpeg(photograph(seed, WIDTH, HEIGHT)) for seed in (2, 3, 5, 6)]
    part = TrainingPictures([(trained, (3, 6))])
    assert len(part) == 3
    assert [part.find("a.jpg", copy) for copy in copies] == [
        None, Seen("bytes", "boats/train", key(3)), Seen("bytes", "boats/train", key(5)), None,
    ]  # fmt: skip
    assert part.find("COCO_val2014_000000310196.jpg", jpeg(photograph(99))) is None
    with pytest.raises(InputError, match=r"has 12 rows, but 3 to 13 were to be looked at"):
        TrainingPictures([(trained, (3, 13))])


def test_several_sets_and_parts_of_them_are_one_table(trained: Path, tmp_path: Path) -> None:
    entries = [Entry([(jpeg(photograph(seed, WIDTH, HEIGHT)), f"{seed}.jpg")]) for seed in range(50, 54)]
    texts = split(tmp_path / "texts/train", [Entry([])] * 5)
    more = split(tmp_path / "ships/train", entries)
    pictures = TrainingPictures([(trained, (8, 12)), texts, (more, (1, 3)), (trained, (0, 2)), more, more])
    assert len(pictures) == 4 + 2 + 2 + 4
    for seed, seen in {9: ("boats", 9), 1: ("boats", 1), 52: ("ships", 2), 53: ("ships", 3), 5: None}.items():
        expected = seen and Seen("looks", f"{seen[0]}/train", key(seen[1], seen[0]))
        assert pictures.find("a.jpg", changed("smaller", seed)) == expected


def test_a_run_without_pictures_has_seen_none(tmp_path: Path) -> None:
    texts = split(tmp_path / "texts/train", [Entry([])] * 5)
    for pictures in (TrainingPictures([]), TrainingPictures([texts])):
        assert (len(pictures), pictures.unknown) == (0, [])
        assert pictures.find("000000310196.jpg", jpeg(photograph(3))) is None


def test_a_damaged_evaluation_picture_is_refused(pictures: TrainingPictures) -> None:
    with pytest.raises(PictureError, match=r"media_undecodable: val/7\.jpg"):
        pictures.find("val/7.jpg", b"no picture")


def test_training_rows_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    entries = [Entry([(jpeg(photograph(seed, WIDTH, HEIGHT)), f"{seed}.jpg")]) for seed in range(3)]
    home = split(tmp_path / "boats/train", entries)
    shard = home / "shard-000000.tar"
    content = shard.read_bytes()
    record = content.index(b'"key":"boats-0000000001"')
    picture = content.index(jpeg(photograph(2, WIDTH, HEIGHT))) + 600
    content = content[:record] + b"!" + content[record + 1 : picture] + b"!!!!" + content[picture + 4 :]
    shard.write_bytes(content)
    pictures = TrainingPictures([home])
    assert len(pictures) == 2
    (told,) = pictures.unknown
    assert told.startswith("boats/train: 1 training rows cannot be read, the first: row_malformed: boats/train row 1")
    assert pictures.find("a.jpg", changed("smaller", 2)) is None, "its hash is known, its pixels are not"
    assert pictures.unknown[0].startswith("boats/train: 2 training rows cannot be read")


def test_a_folder_that_holds_no_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        TrainingPictures([tmp_path / "boats/train"])


def test_of_many_blank_pictures_each_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = [Image.new("L", (64, 64), 5 * level) for level in range(20)]
    home = split(tmp_path / "blanks/train", [Entry([(png(picture), "a.png")]) for picture in levels], near=False)
    pictures = TrainingPictures([home])
    read, reads = type(pictures._parts[0].split).read, []
    monkeypatch.setattr(type(pictures._parts[0].split), "read", lambda self, row: reads.append(row) or read(self, row))
    for level in range(60, 100):
        pictures.find("a.png", png(Image.new("RGB", (64, 64), (level, level, level))))
    assert sorted(reads) == sorted(set(reads))
    assert len(reads) <= 20 < KEPT


def test_no_hash_within_four_bits_is_missed() -> None:
    draw = np.random.default_rng(0)
    hashes = draw.integers(0, 2**64, 5000, dtype=np.uint64)
    table = NearHashes(hashes)
    for _ in range(300):
        wanted = int(hashes[draw.integers(len(hashes))])
        for bit in draw.choice(64, draw.integers(0, 7), replace=False):
            wanted ^= 1 << int(bit)
        for bits in (0, 4):
            expected = np.flatnonzero(np.bitwise_count(hashes ^ np.uint64(wanted)) <= bits)
            assert np.array_equal(table.within(wanted, bits), expected)


# the report

SEEN = {"0.jpg": None, "1.jpg": Seen("pixels", "boats/train", key(4)), "2.jpg": None, "3.jpg": None}
SHOWN = {"a": ("0.jpg",), "b": ("0.jpg",), "c": ("1.jpg",), "d": ("1.jpg", "2.jpg"), "e": ("2.jpg",), "f": ()}


def scored(scores: dict[str, float]) -> list[Scored]:
    return [Scored(id, f"group {id}", "yes", "yes", "yes", score) for id, score in scores.items()]


def accuracy(rows: Sequence[Scored]) -> tuple[float, tuple[float, float]]:
    right = sum(row.score for row in rows)
    return right / len(rows), wilson(right, len(rows))


def test_the_rest_are_the_questions_without_a_picture_of_training() -> None:
    rows = scored({"a": 1.0, "b": 0.0, "c": 1.0, "d": 1.0, "e": 0.0, "f": 0.0})
    told = report(SEEN, rows, SHOWN, accuracy, ["x was prepared anew since"])
    low, high = wilson(1, 4)
    assert told == {
        "pictures": 4, "trained_on": 1, "by": {"bytes": 0, "id": 0, "pixels": 1, "looks": 0}, "unchecked": 0,
        "questions": 2, "rest_n": 4, "rest_score": 0.25, "rest_interval": (low, high),
        "examples": [{"picture": "1.jpg", "by": "pixels", "set": "boats/train", "key": key(4)}],
        "unknown": ["x was prepared anew since"],
    }  # fmt: skip
    json.dumps(told)


def test_a_picture_that_was_not_looked_for_is_never_taken_for_clean() -> None:
    seen = {name: SEEN[name] for name in ("0.jpg", "1.jpg")}
    told = report(seen, scored(dict.fromkeys("abcde", 1.0)), SHOWN, accuracy)
    assert (told["unchecked"], told["questions"], told["rest_n"]) == (1, 2, 2)


def test_without_a_rest_there_is_no_score() -> None:
    told = report(SEEN, scored({"c": 1.0, "d": 1.0}), SHOWN, accuracy)
    assert (told["rest_n"], told["rest_score"], told["rest_interval"]) == (0, None, None)


def test_ten_examples_are_told_whatever_the_number() -> None:
    seen: dict[str, Any] = {f"{number}.jpg": Seen("bytes", "boats/train", key(number)) for number in range(30)}
    told = report(seen, [], {}, accuracy)
    assert told["trained_on"] == 30
    assert [example["key"] for example in told["examples"]] == [key(number) for number in range(10)]
