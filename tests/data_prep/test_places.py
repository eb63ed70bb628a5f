"""Pictures in a folder, a zip or a tar: found by name, read in place, refused where they are not what they should be."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest

from data_prep.reading.members import Member
from data_prep.reading.places import FIRST, Pictures
from data_prep.rows import Inputs, Unfit
from vlm.contracts.errors import InputError

FILES = {"1.jpg": b"one", "00/Zwei.JPG": b"two" * 500, "é ü/3\\3.jpg": b"", "train2017": b"no folder"}
NAMES = ("pictures", "pictures.zip", "pictures.tar")
WHERE = "rows.json row 7 (from 0)"


def make_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=form) as archive:  # type: ignore[call-overload]  # a mode that varies
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def make_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def pictures(home: Path, strips_slash: bool = False) -> Pictures:
    return Pictures(Inputs({"from": home}), NAMES, "Put them there.", strips_slash=strips_slash)


def read(home: Path, name: str) -> bytes:
    return pictures(home).at(name, WHERE).read()


FORMS = {
    "folder": lambda home: make_folder(home / "pictures", FILES),
    "zip": lambda home: make_zip(home / "pictures.zip", FILES),
    "stored zip": lambda home: make_zip(home / "pictures.zip", FILES, zipfile.ZIP_STORED),
    "tar": lambda home: make_tar(home / "pictures.tar", FILES),
    "old tar": lambda home: make_tar(home / "pictures.tar", FILES, form=tarfile.GNU_FORMAT),
    "zip of the folder": lambda home: make_zip(home / "pictures.zip", {f"pictures/{n}": d for n, d in FILES.items()}),
    "tar of the folder": lambda home: make_tar(home / "pictures.tar", {f"./pictures/{n}": d for n, d in FILES.items()}),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_names_give_the_same_bytes_whatever_they_lie_in(tmp_path: Path, form: str) -> None:
    FORMS[form](tmp_path)
    assert {name: read(tmp_path, name) for name in FILES} == FILES


@pytest.mark.parametrize("form", FORMS)
def test_a_name_is_asked_for_exactly_as_it_is_spelt(tmp_path: Path, form: str) -> None:
    FORMS[form](tmp_path)
    for name in ("1.JPG", "00/zwei.jpg", "é ü/3/3.jpg", "00", "", "nul\0.jpg", "x" * 5000):
        with pytest.raises(Unfit, match="media_missing"):
            read(tmp_path, name)


@pytest.mark.parametrize("form", FORMS)
def test_what_crosses_to_a_worker_is_small_and_opens_nothing(tmp_path: Path, form: str) -> None:
    FORMS[form](tmp_path)
    unread = pickle.dumps(pictures(tmp_path).at("1.jpg", WHERE))
    assert len(unread) < 600
    assert pickle.loads(unread).read() == b"one"


@pytest.mark.parametrize("name", ["../1.jpg", "00/../../1.jpg", "/1.jpg", "https://pics.example/1.jpg"])
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_name_that_leaves_the_root_is_refused_with_its_row(tmp_path: Path, form: str, name: str) -> None:
    FORMS[form](tmp_path)
    with pytest.raises(InputError, match=r"^rows.json row 7 \(from 0\): .*1.jpg (leaves|is an address)"):
        read(tmp_path, name)


def test_a_leading_slash_is_stripped_only_where_the_set_has_such_names(tmp_path: Path) -> None:
    FORMS["zip"](tmp_path)
    found = pictures(tmp_path, strips_slash=True)
    assert found.at("/1.jpg", WHERE).read() == b"one"
    with pytest.raises(InputError, match="leaves"):
        found.at("/../1.jpg", WHERE)


@pytest.mark.parametrize("name", ["/etc/x.jpg", "../x.jpg", "a/../../x.jpg"])
def test_an_archive_that_leads_out_of_itself_is_refused_by_the_members_name(tmp_path: Path, name: str) -> None:
    make_zip(tmp_path / "pictures.zip", {**FILES, name: b"x"})
    with pytest.raises(InputError, match=rf"pictures.zip holds '{name}', which leads out"):
        pictures(tmp_path)
    (tmp_path / "pictures.zip").unlink()
    make_tar(tmp_path / "pictures.tar", {**FILES, name: b"x"})
    with pytest.raises(InputError, match=rf"pictures.tar holds '{name}', which leads out"):
        pictures(tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_archives_are_refused_by_name(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "pictures.tar", "w") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(InputError, match=r"pictures.tar holds 'link.jpg', a link"):
        pictures(tmp_path)
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        entry = zipfile.ZipInfo("link.jpg")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(InputError, match=r"pictures.zip holds 'link.jpg', a link"):
        pictures(tmp_path)


@pytest.mark.parametrize("name", ["pictures.tar", "pictures.tar.gz", "pictures.tgz"])
def test_a_compressed_tar_is_to_be_unpacked(tmp_path: Path, name: str) -> None:
    make_tar(tmp_path / name, FILES, "w:gz")
    with pytest.raises(InputError, match=rf"{name} is compressed.*unpack it"):
        pictures(tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.8])
@pytest.mark.parametrize("name", ["pictures.zip", "pictures.tar"])
def test_an_archive_cut_short_is_refused(tmp_path: Path, name: str, share: float) -> None:
    files = {f"{number}.jpg": os.urandom(2000) for number in range(20)}
    path = (make_zip if name.endswith("zip") else make_tar)(tmp_path / name, files)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=rf"{name} is not a complete .*get it again"):
        pictures(tmp_path)


def test_members_that_cannot_be_read_in_place_are_named(tmp_path: Path) -> None:
    make_zip(tmp_path / "pictures.zip", FILES, zipfile.ZIP_LZMA)
    with pytest.raises(InputError, match=r"'1.jpg' is compressed by method 14.*unpack it"):
        pictures(tmp_path)


def test_a_damaged_member_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "pictures.zip", {"1.jpg": b"a" * 5000}, zipfile.ZIP_STORED)
    unread = pictures(tmp_path).at("1.jpg", WHERE)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(Unfit, match=r"media_truncated: in pictures.zip is damaged: its checksum differs"):
        unread.read()
    path.write_bytes(data[:1000])
    with pytest.raises(Unfit, match=r"media_truncated: in pictures.zip has .* of its 5000 bytes"):
        unread.read()
    path.unlink()
    with pytest.raises(Unfit, match=r"media_missing: in pictures.zip cannot be read: No such file"):
        unread.read()


def test_a_member_that_inflates_beyond_its_size_is_stopped_there(tmp_path: Path) -> None:
    make_zip(tmp_path / "pictures.zip", {"1.jpg": bytes(10_000_000)})
    whole = pictures(tmp_path).at("1.jpg", WHERE)
    assert isinstance(whole, Member)
    lying = Member(whole.archive, whole.name, whole.at, whole.stored, 100, whole.crc, whole.deflated)
    with pytest.raises(Unfit, match=r"media_truncated: .* has 101 of its 100 bytes"):
        lying.read()


def test_a_member_too_large_for_a_picture_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.reading.places.LARGEST_FILE", 1000)
    FORMS["zip"](tmp_path)
    with pytest.raises(Unfit, match=r"media_huge: 00/Zwei.JPG in .* has 1500 bytes"):
        read(tmp_path, "00/Zwei.JPG")


def test_of_two_members_with_one_name_the_later_counts_as_in_unpacking(tmp_path: Path) -> None:
    make_tar(tmp_path / "pictures.tar", {"1.jpg": b"old"})
    make_tar(tmp_path / "pictures.tar", {"1.jpg": b"new"}, "a")
    assert read(tmp_path, "1.jpg") == b"new"


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_root_that_lacks_the_first_pictures_is_refused_with_examples(tmp_path: Path, form: str) -> None:
    FORMS[form](tmp_path)
    found = pictures(tmp_path)
    for number in range(51):
        with pytest.raises(Unfit, match="media_missing"):
            found.at(f"gone/{number}.jpg", WHERE)
    for _ in range(FIRST - 52):
        found.at("1.jpg", WHERE)
    with pytest.raises(InputError, match=r"only 949 of the first 1000 .*gone/0.jpg, gone/1.jpg.*Put them there"):
        found.at("1.jpg", WHERE)


def test_one_in_twenty_may_be_missing(tmp_path: Path) -> None:
    FORMS["zip"](tmp_path)
    found = pictures(tmp_path)
    for number in range(2 * FIRST):
        if number < 50:
            with pytest.raises(Unfit):
                found.at(f"gone/{number}.jpg", WHERE)
        else:
            found.at("1.jpg", WHERE)


def test_a_missing_root_is_refused_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"not in {tmp_path}: looked for pictures, pictures.zip.*Put them there"):
        pictures(tmp_path)
    with pytest.raises(InputError, match=r"not in .*elsewhere"):
        Pictures(Inputs({"from": tmp_path}), NAMES, "", home=tmp_path / "elsewhere")


def test_the_first_of_the_names_is_taken_and_an_archive_is_noted_as_input(tmp_path: Path) -> None:
    FORMS["zip"](tmp_path)
    FORMS["tar"](tmp_path)
    inputs = Inputs({"from": tmp_path})
    assert Pictures(inputs, NAMES, "").root == tmp_path / "pictures.zip"
    assert [file.file for file in inputs.files] == ["pictures.zip"]
    FORMS["folder"](tmp_path)
    assert pictures(tmp_path).root == tmp_path / "pictures"


def test_a_dry_run_does_not_read_an_archive_to_its_end(tmp_path: Path) -> None:
    FORMS["zip"](tmp_path)
    inputs = Inputs({"from": tmp_path}, dry=True)
    assert Pictures(inputs, NAMES, "").at("1.jpg", WHERE).read() == b"one"
    assert [(file.file, file.sha256) for file in inputs.files] == [("pictures.zip", "")]


def test_a_tar_that_is_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    FORMS["tar"](tmp_path)
    path = tmp_path / "pictures.tar"
    path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(InputError, match=r"pictures.tar has no mark at its end: it is cut short"):
        pictures(tmp_path)


def test_a_file_that_is_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pictures.zip").write_bytes(gzip.compress(b"x"))
    with pytest.raises(InputError, match="is compressed"):
        pictures(tmp_path)
    (tmp_path / "pictures.zip").write_text("<html>not found</html>")
    with pytest.raises(InputError, match="not a complete zip or tar archive"):
        pictures(tmp_path)
