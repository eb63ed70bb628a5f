"""Which pictures are found in evaluation sets, by which sign, and which are not."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from data_prep.overlaps.overlap import Hit, Overlap, describe, gather
from data_prep.overlaps.tables import Table, write_digests, write_hashes
from data_prep.pictures.media import store
from tests.data_prep.small_splits import RULES, Entry, jpeg, photograph, png, split
from vlm.contracts.errors import InputError
from vlm.data.coco import coco_number
from vlm.data.looks import perceptual_hash, thumbnail


def evaluation(data: Path, name: str = "pope/test", seeds: range = range(8), **manifest: Any) -> Path:
    entries = [Entry([(jpeg(photograph(seed)), f"eval/{seed}.jpg")]) for seed in seeds]
    return split(data / name, entries, **{"evaluation": True, **manifest})


def found(data: Path, content: bytes, name: str = "mine/1.jpg", near: bool = True, against: Any = None) -> Hit | None:
    return Overlap(gather(against, data, "own"), near).find(name, store(content, name, RULES))


# by number


@pytest.mark.parametrize(
    "name",
    [
        "COCO_val2014_000000310196.jpg",
        "coco/train2017/000000310196.jpg",
        "train2017.zip:000000310196.jpg",
        "000000310196.png",
        "000000310196",
    ],
)
def test_one_picture_of_coco_has_one_number_in_2014_and_2017(name: str) -> None:
    assert coco_number(name) == 310196


@pytest.mark.parametrize(
    "name", ["GCC_train_000310196.jpg", "201203040506.jpg", "00453/004539375.jpg", "x000000310196.jpg", "a.jpg", ""]
)
def test_other_numbers_are_not_taken_for_cocos(name: str) -> None:
    assert coco_number(name) is None


def test_a_training_picture_is_found_by_its_number_whatever_it_looks_like(tmp_path: Path) -> None:
    split(tmp_path / "pope/test", [Entry([(jpeg(photograph(0)), "COCO_val2014_000000310196.jpg")])], evaluation=True)
    hit = found(tmp_path, jpeg(photograph(99)), "coco/train2017/000000310196.jpg")
    assert hit == Hit("pope/test", "id", "COCO number 310196", 0)
    assert found(tmp_path, jpeg(photograph(99)), "coco/train2017/000000310197.jpg") is None


POPE = '{"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a kite?", "label": "no"}\n'
VQA = {
    "info": {"year": 2014},
    "data_subtype": "val2014",
    "questions": [
        {"image_id": 310196, "question": "How many kites are up?", "question_id": 310196000},
        {"image_id": 42, "question": "Is 000123 a number?", "question_id": 42001},
    ],
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("coco_pope_random.json", POPE * 3),  # JSON Lines, whatever the name says
        ("coco_pope_random.jsonl", POPE),
        ("v2_OpenEnded_mscoco_val2014_questions.json", json.dumps(VQA)),
        ("names.txt", "000000310196\n000000000042.jpg\n"),
        ("split.csv", "question,image_id\nHow many?,310196\n"),
        ("split.tsv", "image\tquestion\nval2014/COCO_val2014_000000310196.jpg\tHow many?\n"),
    ],
)
def test_published_lists_are_read_in_their_own_form(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    against = [str(tmp_path / name)]
    hit = found(tmp_path, jpeg(photograph(0)), "train2017/000000310196.jpg", against=against)
    assert hit == Hit(name, "id", "COCO number 310196")
    assert found(tmp_path, jpeg(photograph(0)), "train2017/000000310000.jpg", against=against) is None


def test_a_name_across_two_blocks_of_a_large_list_is_read(tmp_path: Path) -> None:
    names = [f"COCO_val2014_{number:012d}.jpg" for number in range(0, 500_000, 7)]
    (tmp_path / "names.txt").write_text("\n".join(names))
    (table,) = gather([str(tmp_path / "names.txt")], tmp_path, "own")
    assert table.pictures == len(names)


def test_a_list_without_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("boat.jpg\n")
    with pytest.raises(InputError, match=r"names\.txt names no COCO picture"):
        gather([str(tmp_path / "names.txt")], tmp_path, "own")


# by pixels


def test_the_same_pixels_in_another_format_are_found(tmp_path: Path) -> None:
    evaluation(tmp_path)
    original = jpeg(photograph(3))
    hit = found(tmp_path, original, near=False)
    assert hit is not None
    assert (hit.table, hit.by) == ("pope/test", "pixels")
    assert "row 3 of pope/test" in hit.detail
    hit = Overlap(gather(None, tmp_path, "own"), near=False).find(
        "a.png", store(png(Image.open(_stream(original))), "a.png", replace(RULES, format="png"))
    )
    assert hit is not None
    assert hit.by == "pixels"


def test_a_picture_that_both_sets_shrank_alike_is_found_by_its_bytes(tmp_path: Path) -> None:
    rules = replace(RULES, max_side=100)
    split(tmp_path / "pope/test", [Entry([(jpeg(photograph(0)), "a.jpg")])], rules, evaluation=True)
    stored = store(jpeg(photograph(0)), "b.jpg", rules)
    hit = Overlap(gather(None, tmp_path, "own"), near=False).find("b.jpg", stored)
    assert hit is not None
    assert hit.by == "pixels"


def test_pixels_are_hashed_only_where_looks_are_equal(tmp_path: Path) -> None:
    evaluation(tmp_path)
    stored = store(jpeg(photograph(50)), "a", RULES)
    assert Overlap(gather(None, tmp_path, "own"), near=True).find("a", stored) is None
    assert "pixels" not in vars(stored)


# by looks


def changed(kind: str) -> bytes:
    picture = photograph(5, 640, 480)
    width, height = picture.size
    if kind == "recompressed":
        return jpeg(picture, 35)
    if kind == "smaller":
        return jpeg(picture.resize((width // 3, height // 3), Image.Resampling.LANCZOS))
    if kind == "larger":
        return jpeg(picture.resize((width * 2, height * 2), Image.Resampling.BICUBIC))
    if kind == "cropped":
        return jpeg(picture.crop((4, 3, width - 4, height - 3)))
    if kind == "brighter":
        return jpeg(ImageEnhance.Brightness(picture).enhance(1.03))
    if kind == "grey":
        return jpeg(picture.convert("L"))
    return jpeg(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))


@pytest.mark.parametrize("kind", ["recompressed", "smaller", "larger", "cropped", "brighter", "grey", "mirrored"])
def test_a_changed_copy_is_found_by_its_looks(tmp_path: Path, kind: str) -> None:
    entries = [Entry([(jpeg(photograph(seed, 640, 480)), f"{seed}.jpg")]) for seed in (4, 5)]
    split(tmp_path / "vqa/val", entries, evaluation=True)
    hit = found(tmp_path, changed(kind))
    assert hit is not None
    assert (hit.table, hit.by) == ("vqa/val", "looks")
    assert ("mirror" in hit.detail) == (kind == "mirrored")
    assert "row 1 of vqa/val" in hit.detail


def test_other_photographs_are_not_found(tmp_path: Path) -> None:
    evaluation(tmp_path, seeds=range(40))
    overlap = Overlap(gather(None, tmp_path, "own"), near=True)
    assert not any(overlap.find("a", store(jpeg(photograph(seed)), "a", RULES)) for seed in range(100, 200))


def plain_diagram(level: int) -> Image.Image:
    """A frame on a plain ground: the same shape gives the same hash on every ground."""
    picture = Image.new("L", (256, 256), level)
    ImageDraw.Draw(picture).rectangle((60, 60, 200, 190), outline=level - 40, width=12)
    return picture


def x_ray(ground: int) -> Image.Image:
    """A soft bright shape on a dark ground."""
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    return Image.fromarray((ground + 120 * np.exp(-2 * (x**2 + (y - 0.1) ** 2))).astype(np.uint8))


@pytest.mark.parametrize(
    ("one", "other"), [(plain_diagram(250), plain_diagram(225)), (x_ray(20), x_ray(29))], ids=["diagram", "x-ray"]
)
def test_pictures_with_equal_hashes_and_other_levels_are_two(
    tmp_path: Path, one: Image.Image, other: Image.Image
) -> None:
    hashes = [int(perceptual_hash(thumbnail(np.asarray(picture))), 16) for picture in (one, other)]
    assert (hashes[0] ^ hashes[1]).bit_count() <= 4
    split(tmp_path / "diagrams/test", [Entry([(png(one), "a.png")])], evaluation=True)
    assert found(tmp_path, png(other)) is None
    assert found(tmp_path, png(one)) is not None


def test_looks_decide_only_where_both_sides_agree(tmp_path: Path) -> None:
    evaluation(tmp_path, near=False)
    copy = jpeg(photograph(3), 40)
    assert found(tmp_path, copy) is None
    evaluation(tmp_path / "other")
    assert found(tmp_path / "other", copy) is not None
    assert found(tmp_path / "other", copy, near=False) is None


def test_no_hash_within_four_bits_is_missed(tmp_path: Path) -> None:
    """Candidates are looked up by parts of the hash; the whole table gives the same."""
    evaluation(tmp_path, seeds=range(60))
    overlap = Overlap(gather(None, tmp_path, "own"), near=True)
    (known,) = overlap._known
    draw = np.random.default_rng(0)
    stored = store(jpeg(photograph(0)), "a", RULES)
    for _ in range(300):
        wanted = int(known.hashes[draw.integers(len(known.hashes))])
        for bit in draw.choice(64, draw.integers(0, 7), replace=False):
            wanted ^= 1 << int(bit)
        expected = np.flatnonzero(np.bitwise_count(known.hashes ^ np.uint64(wanted)) <= 4)
        close = known.close(replace(stored, phash=f"{wanted:016x}"), 4)
        assert np.array_equal(np.sort(close), expected)


# the tables


def test_without_names_every_evaluation_split_but_the_sets_own_is_taken(tmp_path: Path) -> None:
    evaluation(tmp_path, "pope/test")
    evaluation(tmp_path, "vqa/val", range(8, 10))
    evaluation(tmp_path, "vqa/train", range(10, 12), evaluation=False)
    assert [table.name for table in gather(None, tmp_path, "mine")] == ["pope/test", "vqa/val"]
    assert [table.name for table in gather(None, tmp_path, "vqa")] == ["pope/test"]
    assert gather(None, tmp_path / "nothing", "mine") == ()
    assert gather([], tmp_path, "mine") == ()


def test_a_training_split_or_a_folder_elsewhere_can_be_named(tmp_path: Path) -> None:
    evaluation(tmp_path, "cc3m/train", evaluation=False)
    home = evaluation(tmp_path / "elsewhere", "vqa/val")
    tables = gather(["cc3m/train", str(home), "cc3m/train"], tmp_path, "cc12m")
    assert [table.name for table in tables] == ["cc3m/train", "vqa/val"]


def test_a_name_that_nothing_has_is_refused_with_what_there_is(tmp_path: Path) -> None:
    evaluation(tmp_path)
    with pytest.raises(InputError, match=r"'popo/test' is no prepared split .* evaluation splits there: pope/test"):
        gather(["popo/test"], tmp_path, "own")


def test_a_table_is_built_once_and_anew_for_another_split(tmp_path: Path) -> None:
    evaluation(tmp_path)
    (before,) = gather(None, tmp_path, "own")
    written = (before.folder / "thumbs.raw").stat().st_mtime_ns
    assert gather(None, tmp_path, "own") == (before,)
    assert (before.folder / "thumbs.raw").stat().st_mtime_ns == written
    evaluation(tmp_path, seeds=range(9))
    (after,) = gather(None, tmp_path, "own")
    assert after.folder != before.folder
    assert after.pictures == 9
    assert not list((tmp_path / ".cache" / "overlap").glob("*.part*"))


def test_a_table_tells_the_manifest_what_was_compared(tmp_path: Path) -> None:
    evaluation(tmp_path)
    (told,) = describe(gather(None, tmp_path, "own"))
    assert {**told, "sha256": ""} == {
        "name": "pope/test", "kind": "split", "pictures": 8, "sha256": "", "near": True,
    }  # fmt: skip
    assert len(told["sha256"]) == 64
    json.dumps(told)


def test_it_is_sent_to_workers_as_paths_alone(tmp_path: Path) -> None:
    evaluation(tmp_path)
    overlap = Overlap(gather(None, tmp_path, "own"), near=True)
    content = jpeg(photograph(3), 40)
    before = overlap.find("a", store(content, "a", RULES))
    sent = pickle.dumps(overlap)
    assert len(sent) < 1000
    assert pickle.loads(sent).find("a", store(content, "a", RULES)) == before != None  # noqa: E711


def test_evaluation_texts_without_pictures_overlap_with_nothing(tmp_path: Path) -> None:
    split(tmp_path / "texts/test", [Entry([])], evaluation=True)
    assert found(tmp_path, jpeg(photograph(0))) is None


def test_of_a_hundred_thousand_pictures_a_row_is_compared_with_a_few_hundred(tmp_path: Path, monkeypatch) -> None:
    draw = np.random.default_rng(0)
    count = 100_000
    np.zeros((count, 32, 32), np.uint8).tofile(tmp_path / "thumbs.raw")
    for name in ("ids", "id_rows", "rows"):
        np.save(tmp_path / f"{name}.npy", np.arange(count))
    write_digests(tmp_path, draw.integers(0, 256, (2 * count, 32), dtype=np.uint8))
    write_hashes(tmp_path, draw.integers(0, 2**63, 2 * count, dtype=np.uint64))
    overlap = Overlap((Table("big", "split", count, "0", True, tmp_path, tmp_path),), near=True)
    compared, count_bits = [], np.bitwise_count
    monkeypatch.setattr(np, "bitwise_count", lambda bits: compared.append(np.size(bits)) or count_bits(bits))
    rows = [store(jpeg(photograph(seed)), "x.jpg", RULES) for seed in range(20)]
    assert not any(overlap.find("x.jpg", stored) for stored in rows)
    assert 0 < sum(compared) / len(rows) < 500


def _stream(content: bytes) -> Any:
    from io import BytesIO

    return BytesIO(content)
