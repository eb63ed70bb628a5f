"""A user's own folder of pictures, with captions in one of three places."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from data_prep.rows import Inputs, Row, Skip
from data_prep.sets.folder import Folder
from tests.data_prep.conftest import encoded, picture
from vlm.contracts.errors import InputError
from vlm.data.shards import ShardSet


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """40 pictures without captions in two sub-folders."""
    home = tmp_path / "mine"
    for number in range(40):
        name = home / ("red_kite" if number % 2 else "owl") / f"{number:02d}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_bytes(encoded(picture(number)))
    return home


def captions(out: Path) -> list[str]:
    found = []
    for split in ("train", "val"):
        shards = ShardSet(out / "folder" / split)
        found += [str(shards[row].turns[-1].parts[0]) for row in range(len(shards))]
    return sorted(found)


def read(home: Path, kind=None) -> list[Row | Skip]:
    return list(Folder("LicenseRef-Own", kind).rows(Inputs({"from": home})))


def skipped(rows: list[Row | Skip]) -> dict[str, str]:
    return {row.origin.id: row.reason for row in rows if isinstance(row, Skip)}


def told(rows: list[Row | Skip]) -> dict[str, str | None]:
    return {row.origin.id: row.caption for row in rows if isinstance(row, Row)}


def write_texts(home: Path) -> None:
    for path in home.rglob("*.png"):
        path.with_suffix(".txt").write_text(f"an  animal\nnumber {path.stem}", "utf-8")


def write_metadata(home: Path, *more: str) -> None:
    rows = [json.dumps({"file_name": f"owl/{n:02d}.png", "text": f"owl {n}", "place": "barn"}) for n in range(0, 40, 2)]
    rows += [json.dumps({"file_name": f"red_kite/{n:02d}.png", "text": f"kite {n}"}) for n in range(1, 40, 2)]
    (home / "metadata.jsonl").write_text("\n".join([*rows, *more]) + "\n", "utf-8")


def test_without_captions_the_folders_names_are_the_classes(prepare, home: Path, tmp_path: Path) -> None:
    manifests = prepare("folder", home)
    assert captions(tmp_path / "out") == ["owl"] * 20 + ["red kite"] * 20
    assert sum(manifest["counts"]["rows_in"] for manifest in manifests) == 40


def test_another_picture_in_the_folder_is_noticed(prepare, home: Path) -> None:
    prepare("folder", home)
    assert prepare("folder", home), "found prepared"
    (home / "owl" / "new.png").write_bytes(encoded(picture(77)))
    with pytest.raises(InputError, match=r"was prepared from other files in .*mine"):
        prepare("folder", home)


def test_text_files_of_the_same_name_hold_the_captions(prepare, home: Path, tmp_path: Path) -> None:
    write_texts(home)
    prepare("folder", home)
    assert captions(tmp_path / "out") == [f"an animal number {n:02d}" for n in range(40)]


def test_a_metadata_table_names_pictures_and_captions(prepare, home: Path, tmp_path: Path) -> None:
    write_metadata(home)
    (manifest, _) = prepare("folder", home)
    assert captions(tmp_path / "out") == sorted(
        [f"owl {n}" for n in range(0, 40, 2)] + [f"kite {n}" for n in range(1, 40, 2)]
    )
    assert [file["file"] for file in manifest["source"]] == ["./", "metadata.jsonl"]
    rows = [row for row in read(home) if isinstance(row, Row)]
    assert (rows[0].meta, rows[-1].meta) == ({"place": "barn"}, None)


def test_a_metadata_table_may_lie_in_a_sub_folder_and_have_commas(home: Path) -> None:
    lines = ["text,file_name", '"an owl, asleep",00.png', "too,many,fields", ",02.png", "gone,x.png"]
    (home / "owl" / "metadata.csv").write_text("\n".join(lines), "utf-8")
    rows = read(home)
    assert told(rows) == {"owl/00.png": "an owl, asleep", "owl/02.png": "", "owl/x.png": "gone"}
    assert skipped(rows) == {"row 2": "row_malformed"} | dict.fromkeys(
        [path.relative_to(home).as_posix() for path in home.rglob("*.png") if path.name not in ("00.png", "02.png")],
        "annotation_missing",
    )


def test_captions_of_two_kinds_are_refused_until_one_is_chosen(home: Path) -> None:
    write_metadata(home)
    (home / "owl" / "00.txt").write_text("an owl")
    with pytest.raises(InputError, match=r"two kinds: owl/00.txt .*metadata.jsonl.*source.reader.captions=text or"):
        read(home)
    assert len(told(read(home, "metadata"))) == 40
    assert told(read(home, "text")) == {"owl/00.png": "an owl"}
    assert len(told(read(home, "folders"))) == 40


def test_pictures_without_text_are_counted_and_never_given_a_filler(home: Path) -> None:
    write_texts(home)
    (home / "owl" / "00.txt").unlink()
    (home / "owl" / "02.txt").write_bytes(b"\xff\xfe")
    assert skipped(read(home)) == {"owl/00.png": "annotation_missing", "owl/02.png": "row_malformed"}
    (home / "top.png").write_bytes(encoded(picture(99)))
    assert skipped(read(home, "folders")) == {"top.png": "annotation_missing"}


def test_bad_rows_of_a_table_are_counted_by_their_row(home: Path) -> None:
    write_metadata(home, '{"file_name": 3, "text": "a"}', '{"file_name": "owl/00.png", "text": ["a"]}',
                   '{"file_name": "owl/00.png", "text": null}', "{", "[1]")  # fmt: skip
    assert skipped(read(home)) == {
        "row 40": "row_malformed",
        "row 41": "row_malformed",
        "row 42": "annotation_missing",
        "row 43": "row_malformed",
        "row 44": "row_malformed",
    }


def test_a_table_of_another_form_is_refused(home: Path) -> None:
    (home / "metadata.jsonl").write_text('{"file_name": "owl/00.png", "caption": "an owl"}\n')
    with pytest.raises(InputError, match=r'row 0 has file_name, caption; a row is \{"file_name"'):
        read(home)
    (home / "metadata.jsonl").unlink()
    (home / "metadata.csv").write_text("name,text\nowl/00.png,an owl\n")
    with pytest.raises(InputError, match=r"line 1 is .*expected a header with file_name and text"):
        read(home)


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "owl/../../x.png"])
def test_a_path_that_leaves_the_folder_is_refused(home: Path, name: str) -> None:
    write_metadata(home, json.dumps({"file_name": name, "text": "a"}))
    with pytest.raises(InputError, match=r"metadata.jsonl row 40: .* leaves"):
        read(home)


@pytest.mark.parametrize("target", ["secret.png", "elsewhere"])
def test_a_link_that_leaves_the_folder_is_refused_and_one_inside_is_a_picture(home: Path, target: str) -> None:
    (home / "owl" / "twin.png").symlink_to(home / "owl" / "00.png")
    assert len(read(home)) == 41
    (home.parent / "elsewhere").mkdir()
    (home.parent / "secret.png").write_bytes(b"")
    (home / "out.png").symlink_to(home.parent / target)
    with pytest.raises(InputError, match=r"out.png is a link to .*, out of"):
        read(home)


def test_hidden_files_and_leftovers_are_no_pictures_and_other_files_are_told(home: Path, caplog) -> None:
    for name in (".hidden.png", "._00.png", "__MACOSX/a.png", ".thumbs/a.png", "Thumbs.db", "notes.md", "owl/LICENSE"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_bytes(b"")
    with caplog.at_level(logging.INFO):
        assert len(read(home)) == 40
    assert "names of folders" in caplog.text
    assert "1 without an ending, 1 .md" in caplog.text


def test_the_order_is_that_of_sorted_names_whatever_the_disk_says(home: Path, monkeypatch) -> None:
    names = [row.origin.id for row in read(home)]
    assert names == sorted(names)
    assert [row.origin.row for row in read(home)] == list(range(40))


def test_folders_of_splits_are_not_mixed(home: Path) -> None:
    (home / "owl").rename(home / "train")
    (home / "red_kite").rename(home / "test")
    with pytest.raises(InputError, match=r"divided into test, train; .*from="):
        read(home)


def test_a_folder_without_pictures_or_captions_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="20 pictures and no captions"):
        read(home / "owl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no pictures"):
        read(tmp_path / "empty", "folders")


def test_a_dry_run_writes_nothing(prepare, home: Path, tmp_path: Path) -> None:
    prepare("folder", home, "dry_run=true")
    assert not (tmp_path / "out").exists()
