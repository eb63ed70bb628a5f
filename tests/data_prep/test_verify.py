"""Every kind of damage to a prepared split is found, named, and told with its place."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.command import run
from data_prep.verify import VerifySettings, main, verify_split
from data_prep.writing.shard import member
from tests.data_prep.conftest import encoded, picture, verify_shards
from vlm.data.canonical import INDEX_DTYPE


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<root>/caption_table/{train,val}, written in several shards, and <root>/chat_jsonl."""
    from tests import prepared

    root = tmp_path_factory.mktemp("whole")
    prepared.captions(root, count=60)
    return prepared.chats(root, count=40)


@pytest.fixture
def split(whole: Path, tmp_path: Path) -> Path:
    """A copy of the training captions that a test may damage."""
    return Path(shutil.copytree(whole / "caption_table" / "train", tmp_path / "caption_table" / "train"))


@pytest.fixture
def chats(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole / "chat_jsonl" / "train", tmp_path / "chat_jsonl" / "train"))


def kinds(directory: Path) -> set[str]:
    return set(verify_split(directory, workers=0).faults.counts)


def told(directory: Path) -> str:
    return "\n".join(verify_shards(directory))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x04
    path.write_bytes(data)


def edit(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The manifest with one thing changed."""
    manifest = json.loads((directory / "manifest.json").read_text())
    change(manifest)
    (directory / "manifest.json").write_text(json.dumps(manifest))


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    data, at = path.read_bytes(), 0
    while data[at] != 0:
        name, size = data[at : at + 100].rstrip(b"\0").decode(), int(data[at + 124 : at + 135], 8)
        yield name, data[at + 512 : at + 512 + size]
        at += 512 + -(-size // 512) * 512


def rewrite(directory: Path, change: Callable[[list[list[tuple[str, bytes]]]], object]) -> None:
    """The first shard with changed samples, and an index and checksums that fit it: only content is wrong."""
    shard = directory / "shard-000000.tar"
    samples: list[list[tuple[str, bytes]]] = []
    for name, data in members(shard):
        if name.endswith(".json"):
            samples.append([])
        samples[-1].append((name, data))
    change(samples)
    rows, offset, content = [], 0, b""
    for sample in samples:
        block = b"".join(member(*one) for one in sample)
        record = json.loads(sample[0][1])
        pixels = sum(medium["w"] * medium["h"] for medium in record["media"])
        count = len(record["media"])
        rows.append((0, offset, len(block), 512, len(sample[0][1]), 0, count, count, pixels))
        content, offset = content + block, offset + len(block)
    shard.write_bytes(content + bytes(1024))
    np.save(directory / "index.npy", np.array(rows, INDEX_DTYPE))

    def again(manifest: dict[str, Any]) -> None:
        for entry, path in ((manifest["shards"][0], shard), (manifest["index"], directory / "index.npy")):
            data = path.read_bytes()
            entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    edit(directory, again)


def change_record(directory: Path, row: int, change: Callable[[dict[str, Any]], object]) -> None:
    def changing(samples: list[list[tuple[str, bytes]]]) -> None:
        name, text = samples[row][0]
        record = json.loads(text)
        change(record)
        samples[row][0] = (name, json.dumps(record, separators=(",", ":")).encode())

    rewrite(directory, changing)


def test_what_was_just_prepared_has_no_faults(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(VerifySettings(whole, workers=2)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {Path(line["dir"]).parent.name for line in lines} == {"caption_table", "chat_jsonl"}
    assert sum(line["samples"] for line in lines) == 60 + 40
    assert all(line["faults"] == {} for line in lines)


def test_rewriting_alone_is_no_fault(split: Path) -> None:
    rewrite(split, lambda samples: None)
    assert verify_shards(split) == []


def test_one_flipped_bit_in_a_text_is_found(split: Path) -> None:
    data = (split / "shard-000000.tar").read_bytes()
    flip(split / "shard-000000.tar", data.index(b"square"))
    assert "shard_changed" in kinds(split)


def test_one_flipped_bit_in_a_picture_is_found_with_its_key(split: Path) -> None:
    data = (split / "shard-000000.tar").read_bytes()
    flip(split / "shard-000000.tar", data.rindex(b"\xff\xd9") - 40)
    assert {"shard_changed", "media_changed"} <= kinds(split)
    assert "caption_table-00000000" in told(split)


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_shard_that_is_cut_short_is_found(split: Path, size: int) -> None:
    shard = split / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:size])
    assert {"shard_malformed", "shard_samples", "shard_changed"} <= kinds(split)


def test_bytes_behind_the_end_of_a_shard_are_found(split: Path) -> None:
    with (split / "shard-000000.tar").open("ab") as stream:
        stream.write(b"more")
    assert kinds(split) == {"shard_changed"}


def test_a_shard_that_is_gone_is_named(split: Path) -> None:
    (split / "shard-000000.tar").unlink()
    assert "shard-000000.tar: is not there" in told(split)


@pytest.mark.parametrize("name", ["shard-000007.tar", "notes.txt"])
def test_a_file_that_the_manifest_does_not_list_is_named(split: Path, name: str) -> None:
    (split / name).write_bytes(b"")
    assert kinds(split) == {"file_foreign"}
    assert name in told(split)


def test_one_flipped_bit_in_the_index_is_found_with_its_row(split: Path) -> None:
    flip(split / "index.npy", (split / "index.npy").stat().st_size - 36 + 4)
    assert kinds(split) == {"index_changed", "index_wrong"}
    assert "offset" in told(split)


def test_an_index_of_other_length_or_none_is_found(split: Path) -> None:
    rows = np.load(split / "index.npy")
    np.save(split / "index.npy", rows[:-1])
    assert kinds(split) == {"index_changed", "index_wrong"}
    (split / "index.npy").unlink()
    assert kinds(split) == {"index_unreadable"}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda m: m["counts"].update(rows_in=m["counts"]["rows_in"] + 1), "counts_wrong"),
        (lambda m: m["counts"].update(samples_out=m["counts"]["samples_out"] - 1), "counts_wrong"),
        (lambda m: m["counts"].update(media_out=0), "counts_wrong"),
        (lambda m: m["counts"].pop("rows_merged"), "manifest_malformed"),
        (lambda m: m["counts"]["skipped"].update(text_empty=1), "skips_wrong"),
        (lambda m: m["license"]["counts"].update({"MIT": 1}), "license_wrong"),
        (lambda m: m["license"].update(flags={"noncommercial": ["CC-BY-NC-4.0"]}), "license_wrong"),
        (lambda m: m["kind"].update(chat=1), "counts_wrong"),
        (lambda m: m["bytes"].update(json=1), "counts_wrong"),
        (lambda m: m["shards"][0].update(samples=1), "shard_samples"),
        (lambda m: m["shards"][0].update(sha256="0" * 64), "shard_changed"),
        (lambda m: m["shards"].append(m["shards"][0]), "manifest_malformed"),
        (lambda m: m["index"].update(sha256="0" * 64), "index_changed"),
        (lambda m: m.update(split="val"), "record_foreign"),
        (lambda m: m.update(format="else"), "manifest_malformed"),
        (lambda m: next(iter(m["sample_check"].values())).update(pixels="0" * 64), "sample_check"),
        (lambda m: m["sample_check"].update({"caption_table-0000099999": {}}), "sample_check"),
    ],
)
def test_an_edited_manifest_is_found(split: Path, change: Callable[[dict[str, Any]], object], kind: str) -> None:
    edit(split, change)
    assert kind in kinds(split)


def test_a_manifest_that_is_no_json_is_told(split: Path) -> None:
    (split / "manifest.json").write_text("{")
    assert kinds(split) == {"manifest_malformed"}


def test_a_medium_that_is_missing_is_named(split: Path) -> None:
    rewrite(split, lambda samples: samples[3].pop())
    assert "media_missing" in kinds(split)
    assert "caption_table-0000000003: its media jpg are not in the archive" in told(split)


def test_a_member_that_no_record_tells_of_is_named(split: Path) -> None:
    rewrite(split, lambda samples: samples[3].append(("caption_table-0000000003.png", b"x")))
    assert "member_foreign" in kinds(split)


def test_a_medium_that_no_turn_shows_is_named(chats: Path) -> None:
    change_record(chats, 1, lambda record: record["messages"][0]["content"].pop(0))
    assert "media_unused" in kinds(chats)
    assert "no turn shows medium 0" in told(chats)


def test_a_pointer_without_a_medium_is_a_malformed_record(chats: Path) -> None:
    change_record(chats, 1, lambda record: record["messages"][0]["content"].append({"type": "image", "i": 9}))
    assert "record_malformed" in kinds(chats)
    assert "points at medium 9" in told(chats)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda r: r["messages"].insert(0, r["messages"][1]), "turns_wrong"),
        (lambda r: r["messages"].insert(0, r["messages"][0]), "turns_wrong"),
        (lambda r: r["messages"].insert(1, {"role": "system", "content": []}), "turns_wrong"),
        (lambda r: r["messages"][0].update(role="narrator"), "record_malformed"),
        (lambda r: r["messages"].pop(), "record_malformed"),
        (lambda r: r["messages"][1]["content"].append({"type": "image", "i": 0}), "turns_wrong"),
        (lambda r: r["messages"][0]["content"][0].update(type="video"), "media_unused"),
        (lambda r: r.update(colour="red"), "record_malformed"),
        (lambda r: r.update(license="MIT"), "license_wrong"),
        (lambda r: r.update(split="test"), "record_foreign"),
        (lambda r: r["media"][0].update(w=31), "media_size"),
        (lambda r: r["media"][0].update(bytes=9), "media_changed"),
        (lambda r: r["media"][0].update(sha256="0" * 64), "media_changed"),
        (lambda r: r["media"][0].update(member="png"), "media_missing"),
    ],
)
def test_a_record_that_says_something_else_is_found(
    chats: Path, change: Callable[[dict[str, Any]], object], kind: str
) -> None:
    change_record(chats, 1, change)
    assert kind in kinds(chats)


def test_samples_in_another_order_are_found(split: Path) -> None:
    rewrite(split, lambda samples: samples.insert(0, samples.pop(4)))
    assert {"key_wrong", "record_foreign"} <= kinds(split)


def test_every_picture_is_decoded_not_only_its_header(split: Path) -> None:
    def damage(samples: list[list[tuple[str, bytes]]]) -> None:
        (name, text), (place, data) = samples[2]
        cut = data[: len(data) // 2]
        record = json.loads(text)
        record["media"][0] |= {"bytes": len(cut), "sha256": hashlib.sha256(cut).hexdigest()}
        samples[2] = [(name, json.dumps(record, separators=(",", ":")).encode()), (place, cut)]

    rewrite(split, damage)
    assert {"media_truncated", "media_undecodable"} & kinds(split)


def test_a_lost_or_broken_list_of_skips_is_found(split: Path) -> None:
    (split / "skipped.jsonl").write_text('{"reason": "text_empty"}\n{"re\n')
    assert verify_split(split, workers=0).faults.counts["skips_wrong"] == 3
    (split / "skipped.jsonl").unlink()
    assert kinds(split) == {"skips_wrong"}


def test_skipped_rows_are_counted_not_lines(whole: Path, prepare: Callable[..., Any], tmp_path: Path) -> None:
    home = tmp_path / "mine"
    home.mkdir()
    for number in range(60):
        (home / f"{number}.png").write_bytes(encoded(picture(number)))
    lines = [f"{number}.png\t{'' if number == 5 else f'a kite {number}'}\n" for number in range(60)]
    (home / "captions.tsv").write_text("".join(lines))
    prepare("caption_table", home, "+source.budget.text_empty=10")
    for path in (tmp_path / "out" / "caption_table").glob("*/"):
        assert verify_shards(path) == []


@pytest.mark.parametrize("left", ["shard-000000.tar.part", "index.npy.part", "../journal.sqlite"])
def test_an_unfinished_preparation_is_told_as_such(split: Path, left: str, capsys: pytest.CaptureFixture[str]) -> None:
    (split / "manifest.json").unlink()
    (split / left).resolve().write_bytes(b"")
    assert main(VerifySettings(split.parents[1], workers=0)) == 1
    told = capsys.readouterr()
    assert "a preparation did not come to its end; run the same command again" in told.err
    assert json.loads(told.out)["faults"] == {"unfinished": 1}


def test_a_fault_is_one_line_whatever_the_data_hold(chats: Path) -> None:
    change_record(chats, 1, lambda record: record.update({"a\n\x1b[31mb": 1}))
    (line,) = [line for line in verify_shards(chats) if line.startswith("record_malformed")]
    assert "\x1b" not in line
    assert len(line.splitlines()) == 1


def test_a_folder_under_another_name_and_a_relative_path_are_no_fault(
    split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = split.rename(split.with_name("again"))
    monkeypatch.chdir(renamed)
    assert verify_shards(Path()) == []


def test_many_faults_of_one_kind_are_a_few_lines_and_a_number(split: Path) -> None:
    rewrite(split, lambda samples: samples.reverse())
    lines = [line for line in verify_shards(split) if line.startswith("key_wrong")]
    assert len(lines) == 6
    assert lines[-1].startswith("key_wrong: and ")


def test_where_nothing_is_prepared_the_command_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("About.", VerifySettings, main, [f"dir={tmp_path}"]) == 2
    assert "holds no prepared set" in capsys.readouterr().err
    assert run("About.", VerifySettings, main, [f"dir={tmp_path / 'none'}"]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_the_command_itself_exits_with_1_on_any_fault(split: Path, run_command: Callable[..., Any]) -> None:
    assert run_command("data_prep.verify", f"dir={split}").returncode == 0
    flip(split / "shard-000000.tar", 600)
    done = run_command("data_prep.verify", f"dir={split}", "workers=2")
    assert done.returncode == 1
    assert "shard_changed: " in done.stderr
    assert json.loads(done.stdout)["faults"]
