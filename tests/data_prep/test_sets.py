"""Each set's own step, on invented files in the set's true shape."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.reading.archive import files
from data_prep.reading.shapes import facts
from data_prep.rows import Inputs, Row, Skip
from data_prep.sets.captions_small import emoji, from_file_name, openclipart, tuxpaint
from data_prep.sets.digits_small import enlarge
from data_prep.sets.easy_vqa_captions import DescribedShapes
from data_prep.sets.mnist import NAMES, Idx
from tests.data_prep.conftest import encoded, picture, verify_shards
from vlm.contracts.errors import InputError
from vlm.data.pictures import open_picture
from vlm.data.shards import ShardSet

# --- mnist


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 2048 + array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    home = tmp_path / "idx"
    home.mkdir()
    draw = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 10)):
        images = draw.integers(0, 255, (count, 28, 28)).astype(np.uint8)
        (home / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (home / f"{prefix}-labels-idx1-ubyte").write_bytes(idx((np.arange(count) % 10).astype(np.uint8)))
    return home


ANY_DIGITS = "source.reader.checksums=null"


def test_mnist_gives_grey_png_and_the_digits_name(prepare, digits: Path, tmp_path: Path) -> None:
    train, test = prepare("mnist", digits, ANY_DIGITS)
    assert (train["counts"]["samples_out"], test["counts"]["samples_out"]) == (30, 10)
    assert train["license"]["counts"] == {"CC-BY-SA-3.0": 30}
    assert train["license"]["flags"] == {"share_alike": ["CC-BY-SA-3.0"]}
    assert train["license"]["texts"] == {"CC-BY-SA-3.0": "https://spdx.org/licenses/CC-BY-SA-3.0.html"}
    shards = ShardSet(tmp_path / "out/mnist/train")
    assert [shards[row].turns[1].parts[0] for row in range(4)] == ["zero", "one", "two", "three"]
    assert shards[0].turns[0].parts == (0,)
    image = open_picture(shards[7].media[0].data, "a")
    assert image.mode == "L"
    assert shards[7].media[0].data.startswith(b"\x89PNG")
    source = (digits / "train-images-idx3-ubyte").read_bytes()[16:]
    assert image.tobytes() == source[7 * 784 : 8 * 784]


def test_mnist_reads_compressed_files_alike(prepare, digits: Path, tmp_path: Path) -> None:
    plain = prepare("mnist", digits, ANY_DIGITS)
    for path in list(digits.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = prepare("mnist", digits, ANY_DIGITS, f"out={tmp_path / 'packed'}")
    assert [m["shards"] for m in plain] == [m["shards"] for m in packed]


def test_mnist_takes_only_the_published_files_unless_told_otherwise(prepare, digits: Path) -> None:
    with pytest.raises(InputError, match=r"is not the published file .*source.reader.checksums=null"):
        prepare("mnist", digits)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "t10k-labels-idx1-ubyte .* is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has 17 bytes, its header promises 18"),
        (lambda path: path.write_bytes(idx(np.zeros((2, 2, 2), np.uint8))), "does not begin with 2049"),
        (lambda path: path.write_bytes(idx(np.zeros(9, np.uint8))), "10 pictures but there are 9 labels"),
    ],
)
def test_mnist_refuses_files_of_another_form(prepare, digits: Path, damage, message: str) -> None:
    damage(digits / "t10k-labels-idx1-ubyte")
    with pytest.raises(InputError, match=message):
        prepare("mnist", digits, ANY_DIGITS)


def test_a_label_beyond_nine_is_skipped(digits: Path) -> None:
    (digits / "t10k-labels-idx1-ubyte").write_bytes(idx(np.full(10, 11, np.uint8)))
    rows = list(Idx("", "", list(NAMES), "MIT", None).rows(Inputs({"from": digits})))
    assert [row.reason for row in rows if isinstance(row, Skip)] == ["label_bad"] * 10


def test_a_limit_takes_the_first_rows_of_each_split(prepare, digits: Path) -> None:
    manifests = prepare("mnist", digits, ANY_DIGITS, "limit=3")
    assert [m["counts"]["rows_in"] for m in manifests] == [3, 3]


def test_one_flipped_byte_is_found(prepare, digits: Path, tmp_path: Path) -> None:
    prepare("mnist", digits, ANY_DIGITS)
    shard = tmp_path / "out/mnist/test/shard-000000.tar"
    assert verify_shards(shard.parent) == []
    for place in (3, 600, 2000, shard.stat().st_size - 1):
        data = bytearray(shard.read_bytes())
        data[place] ^= 1
        shard.write_bytes(data)
        assert verify_shards(shard.parent)
        data[place] ^= 1
        shard.write_bytes(data)
    assert verify_shards(shard.parent) == []


# --- captions_small


@pytest.fixture
def emoji_files() -> dict[str, bytes]:
    table, found = [], {}
    for number in range(60):
        table.append({"name": f"KITE {number}", "image": f"{number:04x}.png", "category": "Objects"})
        found[f"img/google/64/{number:04x}.png"] = encoded(picture(number, 64, 64, "RGBA" if number % 2 else "LA"))
    table[1]["name"] = "KEYCAP: *"
    table += [
        {"name": "Sark Flag", "image": "0001.png", "category": "Flags"},
        {"name": "EMOJI MODIFIER", "image": "0002.png", "category": "Component"},
        {"name": "SAME AS KITE 3", "image": "0003.png", "category": "Objects"},
        {"name": "GONE", "image": "ffff.png", "category": "Objects"},
    ]
    return {"emoji.json": json.dumps(table).encode(), **found}


def test_emoji_have_readable_names_and_wrong_ones_are_left_out(prepare, emoji_files, tmp_path: Path) -> None:
    home = tmp_path / "published"
    home.mkdir()
    with tarfile.open(home / "emoji-datasource-google-16.0.0.tgz", "w:gz") as archive:
        for name, data in emoji_files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    manifests = prepare("captions_small", home, "++source.budget.media_missing=5")
    skipped: dict[str, int] = {}
    for manifest in manifests:
        for reason, count in manifest["counts"]["skipped"].items():
            skipped[reason] = skipped.get(reason, 0) + count
    assert skipped == {"excluded": 2, "dup_exact": 1, "media_missing": 1}
    assert sum(m["counts"]["samples_out"] for m in manifests) == 60
    captions, pixels = set(), set()
    for split in ("train", "val"):
        shards = ShardSet(tmp_path / "out/captions_small" / split)
        captions |= {shards[row].turns[1].parts[0] for row in range(len(shards))}
        found = {shards[row].media[0].sha256 for row in range(len(shards))}
        assert not found & pixels
        pixels |= found
    assert {"kite 0", "keycap asterisk"} <= captions


def test_a_folder_without_any_of_the_packages_is_refused(prepare, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds none of emoji-datasource-google"):
        prepare("captions_small", tmp_path)


def test_emoji_read_alike_from_a_folder(emoji_files, tmp_path: Path) -> None:
    for name, data in emoji_files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert sum(isinstance(row, Row) for row in emoji(tmp_path, "MIT")) == 61


def test_stamps_take_the_first_line_of_their_text(tmp_path: Path) -> None:
    home = tmp_path / "usr/share/tuxpaint/stamps/animals"
    home.mkdir(parents=True)
    (home / "cow.png").write_bytes(encoded(picture(1)))
    (home / "cow.txt").write_text("A  cow.\nde.utf8=Eine Kuh.\n")
    (home / "cow_mirror.png").write_bytes(encoded(picture(2)))
    row, skip = tuxpaint(tmp_path, "GPL-2.0-or-later")
    assert isinstance(row, Row)
    assert (row.caption, row.meta) == ("A cow.", {"category": "animals"})
    assert isinstance(skip, Skip)
    assert skip.reason == "annotation_missing"


def test_clip_art_is_called_by_its_file_and_links_are_repeats(tmp_path: Path) -> None:
    home = tmp_path / "usr/share/openclipart/png"
    for folder in ("food", "shapes/stars"):
        (home / folder).mkdir(parents=True)
        (home / folder / "red_kite_ann_01.png").write_bytes(encoded(picture(1)))
    (home / "food/zebra.png").symlink_to("red_kite_ann_01.png")
    found = list(openclipart(tmp_path, "CC-PDDC"))
    assert [row.caption if isinstance(row, Row) else row.reason for row in found] == [
        "red kite ann",
        "dup_exact",
        "excluded",
    ]


@pytest.mark.parametrize(
    ("stem", "caption"),
    [("emperor_penguin_ralf_ste_01", "emperor penguin ralf ste"), ("A-bird", "a bird"), ("01", ""), ("x_2", "")],
)
def test_file_names_become_captions(stem: str, caption: str) -> None:
    assert from_file_name(stem) == caption


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_debian_package_reads_like_the_folder_it_was_made_from(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "usr/share/art").mkdir(parents=True)
    (tree / "usr/share/art/a.png").write_bytes(b"one")
    (tree / "usr/share/art/b.png").symlink_to("a.png")
    expected = files(tree, "usr/share/", (".png",))
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: art\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: x\n"
    )
    subprocess.run(["dpkg-deb", "--build", tree, tmp_path / "art_1_all.deb"], check=True, capture_output=True)
    assert files(tmp_path / "art_1_all.deb", "usr/share/", (".png",)) == expected
    (tmp_path / "art_1_all.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(InputError, match=r"art_1_all.deb"):
        files(tmp_path / "art_1_all.deb", "usr/share/", (".png",))


# --- digits_small


def test_small_digits_fill_28_pixels_and_keep_their_ink() -> None:
    grey = np.zeros((8, 8))
    grey[2:6, 3:5] = 16
    image = np.asarray(enlarge(grey), dtype=float)
    assert image.shape == (28, 28)
    assert image.max() == 255
    halves = image.reshape(14, 2, 14, 2).mean((1, 3))
    assert abs(halves.mean() - 255 * grey.mean() / 16) < 2


def test_small_digits_are_read_from_the_wheel(prepare, tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    lines = [",".join(map(str, [*draw.integers(0, 17, 64), number % 10])) for number in range(60)]
    home = tmp_path / "wheel"
    home.mkdir()
    (home / "digits.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(InputError, match=r"source.reader.checksum=null"):
        prepare("digits_small", home)
    manifests = prepare("digits_small", home, "source.reader.checksum=null")
    assert [m["split"] for m in manifests] == ["train", "test"]
    assert sum(m["counts"]["samples_out"] for m in manifests) == 60
    (home / "digits.csv.gz").write_bytes(gzip.compress(b"1,2,3\n"))
    with pytest.raises(InputError, match="must have 64 grey values"):
        prepare("digits_small", home, "source.reader.checksum=null", f"out={tmp_path / 'b'}")


# --- easy_vqa_captions


def test_questions_tell_shape_and_colour() -> None:
    asked = [
        ["what shape is in the image?", "circle", 0],
        ["is there not a circle?", "yes", 1],
        ["is no rectangle present?", "yes", 1],
        ["does the image contain a triangle?", "yes", 2],
        ["what color is the triangle?", "teal", 2],
        ["is there a circle?", "no", 3],
        ["is there a red shape?", "yes", 3],
    ]
    shapes, colours = facts(asked, "questions.json")
    assert shapes == {0: {"circle"}, 1: {"triangle"}, 2: {"triangle"}, 3: {"rectangle", "triangle"}}
    assert colours == {2: "teal"}
    with pytest.raises(InputError, match=r"questions.json row 1: .* is not \[question"):
        facts([["is there a circle?", "yes"]], "questions.json")


def test_a_description_needs_a_known_shape_and_agreeing_pixels(tmp_path: Path) -> None:
    def drawn(colour: tuple[int, int, int]) -> bytes:
        image = Image.new("RGB", (64, 64), (248, 234, 230))
        image.paste(colour, (10, 10, 30, 30))
        return encoded(image)

    asked = [["what shape is in the image?", "rectangle", n] for n in (0, 1, 3)] + [["is there a circle?", "no", 2]]
    asked += [["what color is the shape?", "red", 1]]
    wheel = tmp_path / "easy_vqa-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for split in ("train", "test"):
            archive.writestr(f"easy_vqa/data/{split}/questions.json", json.dumps(asked))
            for number in range(3):
                archive.writestr(f"easy_vqa/data/{split}/images/{number}.png", drawn((0, 128, 128)))
    rows = list(DescribedShapes("MIT").rows(Inputs({"data": wheel})))
    told = [row.caption if isinstance(row, Row) else row.reason for row in rows]
    assert told == ["there is one teal rectangle", "label_bad", "annotation_missing", "media_missing"] * 2
    assert [row.origin.id for row in rows[:1] + rows[4:5]] == ["train-0", "test-0"]


# --- flickr8k


@pytest.fixture
def flickr(tmp_path: Path) -> Path:
    home = tmp_path / "flickr"
    (home / "Flicker8k_Dataset").mkdir(parents=True)
    names = [f"7700{number}_ab.jpg" for number in range(6)]
    lines = []
    for number, name in enumerate([*names, "2258_ec.jpg.1"]):
        lines += [f"{name}#{k}\tCaption {k} of picture {number} ." for k in range(5)]
        if name.endswith(".jpg"):
            (home / "Flicker8k_Dataset" / name).write_bytes(encoded(picture(number), "JPEG"))
    (home / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    for file, part in (("train", names[:3]), ("dev", names[3:4]), ("test", names[4:5])):
        (home / f"Flickr_8k.{file}Images.txt").write_text("\n".join(part) + "\n")
    return home


ONE_MISSING = "++source.budget.media_missing=20"  # of 7 pictures; the published 8,092 stay within the default


def test_flickr8k_is_one_sample_a_picture_with_five_captions_in_its_official_split(prepare, flickr, tmp_path) -> None:
    manifests = prepare("flickr8k", flickr, ONE_MISSING)
    assert {m["split"]: m["counts"]["samples_out"] for m in manifests} == {"train": 3, "val": 1, "test": 1}
    assert manifests[0]["counts"]["skipped"] == {"excluded": 1, "media_missing": 1}
    assert set(manifests[0]["license"]["flags"]) == {"noncommercial", "no_media_rights"}
    sample = ShardSet(tmp_path / "out/flickr8k/train")[1]
    assert sample.turns[1].parts == ("Caption 0 of picture 1 .",)
    assert sample.meta["captions"] == [f"Caption {k} of picture 1 ." for k in range(5)]


def test_flickr8k_reads_the_table_form_alike(prepare, flickr: Path, tmp_path: Path) -> None:
    first = prepare("flickr8k", flickr, ONE_MISSING)
    tokens = (flickr / "Flickr8k.token.txt").read_text().splitlines()
    rows = [f"{line.split('#')[0]},{line.split(chr(9))[1]}" for line in tokens]
    (flickr / "Flickr8k.token.txt").unlink()
    (flickr / "captions.txt").write_text("\n".join(["image,caption", *rows]))
    second = prepare("flickr8k", flickr, ONE_MISSING, f"out={tmp_path / 'table'}")
    assert [m["counts"] for m in first] == [m["counts"] for m in second]


def test_flickr8k_without_split_lists_is_refused_with_what_to_do(prepare, flickr: Path) -> None:
    (flickr / "Flickr_8k.devImages.txt").unlink()
    with pytest.raises(InputError, match=r"has no Flickr_8k.devImages.txt.*source=caption_table"):
        prepare("flickr8k", flickr)


def test_flickr8k_refuses_swapped_columns_and_a_missing_folder(prepare, flickr: Path) -> None:
    tokens = flickr / "Flickr8k.token.txt"
    tokens.write_text("A girl in a yellow coat .\t7700_ab.jpg#3\n")
    with pytest.raises(InputError, match=r"row 1: .* is not name.jpg#k"):
        prepare("flickr8k", flickr)
    shutil.rmtree(flickr / "Flicker8k_Dataset")
    with pytest.raises(InputError, match=r"no picture folder .*unpack Flickr8k_Dataset.zip"):
        prepare("flickr8k", flickr)
