"""Descriptions of easy-VQA's pictures: with places from pixels, asked for, and with faults that are put in and told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml
from PIL import Image

from data_prep.forms.facts import drawn, known
from data_prep.forms.pairs import said_of
from data_prep.forms.words import ASKED, place, with_second
from data_prep.reading.shapes import COLOURS, centre, drawings
from data_prep.rows import Inputs, Row, Skip
from data_prep.sets.easy_vqa_captions import DescribedShapes
from data_prep.sets.easy_vqa_described import FAULT, AskedDescriptions
from data_prep.sets.easy_vqa_positions import PlacedShapes
from tests.data_prep.conftest import encoded
from tests.data_prep.drawn import PIXEL, shape_of, unpacked, wheel
from tests.data_prep.published import ROOT, cached
from vlm.contracts.settings import DataSettings, SetUse
from vlm.data.shards import ShardSet
from vlm.data.sources import open_all
from vlm.evaluation.scorers.descriptions import exact

REAL = {"positions": ("MIT", 16, 3600), "described": ("MIT", 1.0, 0.0, 3600), "flawed": ("MIT", 0.4, 0.6, 3600)}


def square(x: int, y: int, colour: str = "teal") -> bytes:
    """64x64 with a square of 8 whose middle is (x, y)."""
    image = Image.new("RGB", (64, 64), (248, 234, 230))
    image.paste(PIXEL[colour], (x - 4, y - 4, x + 4, y + 4))  # type: ignore[arg-type]
    return encoded(image)


def kept(rows) -> list[Row]:
    return [row for row in rows if isinstance(row, Row)]


def said(row: Row) -> str:
    """The answer of a chat of one turn."""
    return (row.messages or [])[-1].text


# --- places


@pytest.mark.parametrize(
    ("x", "y", "where"),
    [
        (10, 10, "at the top left"), (32, 10, "at the top"), (54, 10, "at the top right"),
        (10, 32, "at the left"), (32, 32, ""), (54, 32, "at the right"),
        (10, 54, "at the bottom left"), (32, 54, "at the bottom"), (54, 54, "at the bottom right"),
        (24, 32, "at the left"), (25, 39, ""), (40, 32, "at the right"),
    ],
)  # fmt: skip
def test_a_place_is_one_of_nine_and_read_from_the_pixels(x: int, y: int, where: str) -> None:
    assert place(square(x, y), "teal", 16) == where


def test_captions_with_places_say_colour_shape_and_side(prepare, tmp_path: Path) -> None:
    train, val, test = prepare("easy_vqa_positions", unpacked(tmp_path), "source.reader.val_from=18")
    assert [m["counts"]["samples_out"] for m in (train, val, test)] == [18, 6, 12]
    assert (train["evaluation"], val["evaluation"], test["evaluation"]) == (False, False, True)
    shards = ShardSet(tmp_path / "out/easy_vqa_positions/val")
    for row in range(6):
        colour, shape = shape_of(18 + row)
        side = "left" if (18 + row) % 2 else "right"  # as tests/data_prep/drawn.py draws them
        assert shards[row].turns[1].parts == (f"there is one {colour} {shape} at the top {side}",)
        assert shards[row].meta == {"color": colour, "shape": shape, "place": f"at the top {side}"}


# --- asked descriptions, right and flawed


def test_an_alignment_chat_asks_as_the_benchmark_does_and_answers_as_the_captions_say(prepare, tmp_path: Path) -> None:
    benchmark = yaml.safe_load((ROOT / "conf/benchmark/small_descriptions.yaml").read_text("utf-8"))
    assert benchmark["prompt"] == ASKED
    folder = unpacked(tmp_path)
    prepare("easy_vqa_described", folder, "source.reader.val_from=18")
    captions = {row.origin.id: row.caption for row in kept(DescribedShapes("MIT").rows(Inputs({"from": folder})))}
    for split, count in (("train", 18), ("val", 6)):
        shards = ShardSet(tmp_path / "out/easy_vqa_described" / split)
        assert len(shards) == count
        for number in range(count):
            record, _ = shards.read(number)
            asked, answered = record.messages or []
            assert (asked.text, answered.text) == (ASKED, captions[record.src.id])
            assert "declared_faults" not in (record.meta or {})


def test_every_answer_that_names_an_invented_thing_declares_it_and_no_other_does(tmp_path: Path) -> None:
    rows = kept(AskedDescriptions("MIT", 1.0, 0.5, 99).rows(Inputs({"data": wheel(tmp_path, train=60)})))
    faulty = [row for row in rows if "declared_faults" in (row.meta or {})]
    assert 15 < len(faulty) < 45
    for row in rows:
        meta = row.meta or {}
        scored = exact(said(row), meta)
        assert scored["score"] == (row not in faulty)
        assert not scored["wrong_colour"]
        assert not scored["wrong_shape"]
        if row in faulty:
            assert meta["declared_faults"] == [FAULT]
            assert scored["invented"]
            assert said(row) == with_second(meta["color"], meta["shape"], meta["invented"])
            assert not {meta["color"], meta["shape"]} & set(meta["invented"].split())


def test_manifest_card_and_data_record_tell_the_declared_faults(prepare, tmp_path: Path, caplog) -> None:
    manifests = prepare(
        "easy_vqa_flawed", unpacked(tmp_path, train=60), "source.reader.described=1.0", "source.reader.val_from=50"
    )
    count = manifests[0]["declared_faults"][FAULT]
    assert 0 < count < 50
    assert f"| {FAULT} | {count} |" in (tmp_path / "out/easy_vqa_flawed/train/card.md").read_text("utf-8")
    reads = {"train": {"easy_vqa_flawed": SetUse("train")}, "validate": {}, "test": {}}
    settings = DataSettings(**reads, shuffle=True, prompts=[""], skip_budget=0.001, cache_gb=0.0)
    record = open_all(str(tmp_path / "out"), settings).record
    assert record["sets"]["train"]["easy_vqa_flawed"]["declared_faults"] == {FAULT: count}
    assert f"easy_vqa_flawed holds faults put in on purpose: {count} {FAULT} in 50 samples" in caplog.text


def test_a_smaller_share_describes_fewer_of_the_same_pictures_and_counts_the_others(tmp_path: Path) -> None:
    place = Inputs({"data": wheel(tmp_path, train=60)})
    few, more = (list(AskedDescriptions("MIT", share, 0.0, 99).rows(place)) for share in (0.3, 0.6))
    ids = [{row.origin.id for row in kept(rows)} for rows in (few, more)]
    assert ids[0] < ids[1]
    left_out = [row for row in few if isinstance(row, Skip)]
    assert {row.reason for row in left_out} == {"excluded"}
    assert len(left_out) + len(ids[0]) == 60


def test_rejected_answers_of_pairs_invent_in_the_same_words_but_not_the_same_thing(tmp_path: Path) -> None:
    package = Inputs({"data": wheel(tmp_path, train=60)})
    taught = {row.origin.id: said(row) for row in kept(AskedDescriptions("MIT", 1.0, 1.0, 99).rows(package))}
    pairs = {
        key.split("/")[0]: rejected for key, _, _, rejected in said_of("invented", list(drawings(package, "train")))
    }
    assert pairs.keys() == taught.keys()
    form = {" ".join("_" if word in COLOURS.values() else word for word in text.split()[:4]) for text in pairs.values()}
    assert form == {"there is one _"}
    assert all(exact(text, shape)["invented"] for text, shape in zip(pairs.values(), _facts(package), strict=True))
    assert sum(pairs[key] == taught[key] for key in pairs) < 15  # one of 14 by chance


def _facts(package: Inputs) -> list[dict[str, str]]:
    return [{"color": fact.colour, "shape": fact.shape} for fact in known(drawings(package, "train"))]


def test_a_share_of_keys_is_drawn_as_often_as_asked() -> None:
    assert sum(drawn(0.4, "x", number) for number in range(10_000)) == pytest.approx(4000, abs=200)
    assert not any(drawn(0.0, number) for number in range(1000))
    assert all(drawn(1.0, number) for number in range(1000))


# --- the real package


@pytest.mark.slow
@pytest.mark.published
def test_the_real_package_gives_places_that_its_pixels_confirm_and_the_counted_descriptions() -> None:
    package = Inputs({"data": cached("pip", "easy-vqa")})
    placed = kept(PlacedShapes(*REAL["positions"]).rows(package))
    assert Counter(row.split for row in placed) == {"train": 3452, "val": 385, "test": 954}
    for row in placed:
        meta, content = row.meta or {}, row.pictures[0].content
        assert isinstance(content, bytes)
        x, y = centre(content, meta["color"])
        assert ("left" in meta["place"], "right" in meta["place"]) == (x <= 24, x >= 40)
        assert ("top" in meta["place"], "bottom" in meta["place"]) == (y <= 24, y >= 40)
    places = Counter((row.meta or {})["place"] for row in placed)
    assert len(places) == 9
    assert max(places.values()) < 2 * min(places.values())
    described = kept(AskedDescriptions(*REAL["described"]).rows(package))
    assert Counter(row.split for row in described) == {"train": 3452, "val": 385}
    flawed = kept(AskedDescriptions(*REAL["flawed"]).rows(package))
    faults = Counter(row.split for row in flawed if "declared_faults" in (row.meta or {}))
    assert (Counter(row.split for row in flawed), faults) == ({"train": 1395, "val": 154}, {"train": 854, "val": 96})
