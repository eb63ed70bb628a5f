"""Many archives as one table, some of them cut in two; tars that are read as they come; clips too large for the memory."""

from __future__ import annotations

import io
import os
import pickle
import random
import zipfile
from pathlib import Path

import pytest

from data_prep.reading.archives import Archives, archives_in, natural, streamed
from data_prep.reading.clip_talks import Shelf
from data_prep.rows import Inputs, Unfit
from tests.data_prep.test_places import make_tar, make_zip
from vlm.contracts.errors import InputError
from vlm.data.canonical import Origin

BIG = random.Random(0).randbytes(300_000)
FILES = {"a/1.mp4": b"one" * 1000, "a/2.mp4": BIG, "3.mp4": b""}


def cut(path: Path, at: int) -> None:
    """A zip as two files, as OpenVid's large parts are published."""
    data = path.read_bytes()
    path.with_name(f"{path.stem}_partaa").write_bytes(data[:at])
    path.with_name(f"{path.stem}_partab").write_bytes(data[at:])
    path.unlink()


def table(folder: Path, *patterns: str, **options) -> Archives:
    return Archives(Inputs({"from": folder}), archives_in(folder, patterns or ("*",)), **options)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("at", [10, 1500, 200_000, -30])
def test_a_cut_zip_is_read_as_one_wherever_it_is_cut(tmp_path: Path, method: int, at: int) -> None:
    cut(make_zip(tmp_path / "OpenVid_part102.zip", FILES, method), at)
    found = table(tmp_path)
    assert {name: found.find(name).read() for name in found} == FILES  # type: ignore[union-attr]
    for name, data in FILES.items():
        member = pickle.loads(pickle.dumps(found.find(name)))
        with member.open() as stream:
            assert stream.read() == data
            stream.seek(len(data) // 2)
            assert stream.read(7) == data[len(data) // 2 :][:7]
            assert stream.seek(0, os.SEEK_END) == len(data)


def test_archives_come_in_the_order_of_their_numbers_the_cut_ones_among_them(tmp_path: Path) -> None:
    for number in (0, 2, 10, 102):
        make_zip(tmp_path / f"OpenVid_part{number}.zip", {f"{number}.mp4": b"x"})
    cut(tmp_path / "OpenVid_part102.zip", 20)
    names = [[path.name for path in files] for files in archives_in(tmp_path, ["*.zip", "*_part??"])]
    assert [parts[0] for parts in names] == [
        "OpenVid_part0.zip", "OpenVid_part2.zip", "OpenVid_part10.zip", "OpenVid_part102_partaa",
    ]  # fmt: skip
    assert natural("a10") > natural("a9")


@pytest.mark.parametrize("lost", ["aa", "ab"])
def test_a_part_that_is_missing_is_named(tmp_path: Path, lost: str) -> None:
    cut(make_zip(tmp_path / "OpenVid_part102.zip", FILES), 1000)
    (tmp_path / f"OpenVid_part102_part{lost}").unlink()
    with pytest.raises(InputError, match="OpenVid_part102 is cut into parts"):
        table(tmp_path)


def test_a_name_in_two_archives_is_refused_and_so_is_one_that_leads_out(tmp_path: Path) -> None:
    make_zip(tmp_path / "1.zip", {"x/a.mp4": b"1"})
    make_zip(tmp_path / "2.zip", {"y/a.mp4": b"2"})
    assert len(table(tmp_path)) == 2
    with pytest.raises(InputError, match=r"both hold 'a\.mp4'"):
        table(tmp_path, named=lambda name: name.rsplit("/", 1)[-1])
    make_tar(tmp_path / "3.tar", {"../a.mp4": b"3"})
    with pytest.raises(InputError, match="leads out"):
        table(tmp_path)


def test_damage_is_found_when_a_clip_is_opened(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "1.zip", {"a.mp4": BIG}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(bytes(data))
    member = table(tmp_path).find("a.mp4")
    assert member is not None
    with pytest.raises(Unfit, match="its checksum differs"):
        member.open()
    path.unlink()
    with pytest.raises(Unfit, match="media_missing"):
        member.open()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_is_read_as_it_comes_and_only_what_is_wanted_is_held(tmp_path: Path, mode: str) -> None:
    path = make_tar(tmp_path / "videos_1.tar.gz", FILES, mode)
    found = dict(streamed(path, lambda name: name != "a/2.mp4"))
    assert found == {**FILES, "a/2.mp4": b""}


def test_a_compressed_tar_that_is_cut_short_or_leads_out_is_refused(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "videos_1.tar.gz", FILES, "w:gz")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="not a complete tar"):
        list(streamed(path, lambda name: True))
    make_tar(path, {"/etc/a.mp4": b""}, "w:gz")
    with pytest.raises(InputError, match="leads out"):
        list(streamed(path, lambda name: True))


def test_rows_wait_on_the_shelf_for_their_clip_in_their_order(tmp_path: Path) -> None:
    with Shelf(tmp_path / "scratch") as shelf:
        for number, clip in enumerate("abab"):
            shelf.put(clip, Origin("f", number, clip), {"n": number})
        shelf.full()
        assert [origin.row for origin, _ in shelf.take("b")] == [1, 3]
        assert not shelf.take("b")
        assert not shelf.waits("b")
        assert [(origin.row, clip) for origin, clip in shelf.left()] == [(0, "a"), (2, "a")]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_window_ends_where_its_member_does(tmp_path: Path) -> None:
    make_tar(tmp_path / "1.tar", {"a.mp4": b"abc", "b.mp4": b"def"})
    member = table(tmp_path).find("a.mp4")
    assert member is not None
    with io.BufferedReader(member.open()) as stream:  # type: ignore[type-var]  # a raw stream, as av reads it
        assert stream.read(100) == b"abc"
