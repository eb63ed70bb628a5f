"""Reading prepared shards: by index, from any process, and only what is whole."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from webdataset.compat import WebDataset

from data_prep.writing.shard import ShardWriter, write_sealed
from vlm.contracts.errors import InputError, RunError
from vlm.contracts.sample import Turn
from vlm.data.canonical import FORMAT, INDEX_DTYPE, Record, from_json, to_json
from vlm.data.shards import RowError, ShardSet

SRC = {"file": "qa.jsonl", "row": 7, "id": "k7"}
USER = {"role": "user", "content": [{"type": "image", "i": 0}, {"type": "text", "text": "How many <image> kites?"}]}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def record(number: int, payloads: list[bytes], **content: Any) -> Record:
    several = len(payloads) > 1
    media = [
        {
            "type": "image",
            "member": f"{i:02d}.png" if several else "png",
            "w": 3,
            "h": 2,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "phash": "0" * 16,
            "orig": f"im/{number}.png",
        }
        for i, data in enumerate(payloads)
    ]
    row = {"v": 1, "key": f"demo-{number:010d}", "set": "demo", "split": "train", "src": SRC, "license": "MIT"}
    return from_json(json.dumps({**row, "media": media, **content}).encode())


ROWS: list[tuple[list[bytes], dict[str, Any]]] = [
    ([b"first"], {"kind": "caption", "caption": "a kite", "meta": {"captions": ["a kite", "a red kite"]}}),
    ([b"x" * 512, b"y" * 700], {"kind": "chat", "messages": [USER, said("Three.")]}),
    ([b"third"], {"kind": "preference", "messages": [USER], "chosen": [said("A clock.")],
               "rejected": [said("A cat.")]}),
    ([], {"kind": "chat", "messages": [{"role": "user", "content": []}, said("Grüße")],
          "answer": {"type": "open", "values": ["Grüße"]}}),
]  # fmt: skip


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Four rows of every kind in several small shards."""
    home = tmp_path / "demo" / "train"
    writer = ShardWriter(home, shard_bytes=6000)
    for number, (payloads, content) in enumerate(ROWS):
        writer.add(record(number, payloads, **content), payloads)
    manifest = {"format": FORMAT, "set": "demo", "split": "train", "index": writer.finish(), "shards": writer.shards}
    manifest |= {"counts": {"samples_out": len(ROWS)}, "license": {"counts": {"MIT": 3, "CC0-1.0": 1}}}
    write_sealed(home / "manifest.json", json.dumps(manifest).encode())
    return home


def test_a_caption_is_a_user_turn_with_the_picture_and_an_answer(directory: Path) -> None:
    sample = ShardSet(directory)[0]
    assert sample.turns == (Turn("user", (0,)), Turn("assistant", ("a kite",)))
    assert sample.meta["captions"] == ["a kite", "a red kite"]
    assert sample.media[0].data == b"first"
    assert sample.media[0].sha256 == hashlib.sha256(b"first").hexdigest()


def test_a_chat_keeps_its_turns_and_its_text_is_only_text(directory: Path) -> None:
    sample = ShardSet(directory)[1]
    assert sample.turns == (Turn("user", (0, "How many <image> kites?")), Turn("assistant", ("Three.",)))
    assert [medium.data for medium in sample.media] == [b"x" * 512, b"y" * 700]


def test_a_preference_pair_ends_in_its_chosen_answer(directory: Path) -> None:
    sample = ShardSet(directory)[2]
    assert sample.turns[-1] == Turn("assistant", ("A clock.",))
    assert sample.rejected == "A cat."


def test_a_row_without_media_and_its_evaluation_answer(directory: Path) -> None:
    sample = ShardSet(directory)[3]
    assert (sample.media, sample.meta["answer"]) == ((), {"type": "open", "values": ["Grüße"]})


def test_reading_by_index_equals_reading_in_order_with_webdataset(directory: Path) -> None:
    shards = ShardSet(directory)
    urls = [str(directory / shard["name"]) for shard in shards.manifest["shards"]]
    assert len(urls) > 1
    in_order = list(WebDataset(urls, shardshuffle=False, empty_check=False))
    assert [row["__key__"] for row in in_order] == [shards[row].key for row in range(len(shards))]
    assert in_order[1]["00.png"] == shards[1].media[0].data
    assert in_order[0]["json"] == to_json(shards.read(0)[0])


def test_the_archives_are_plain_ustar_without_owner_or_time(directory: Path) -> None:
    for path in directory.glob("*.tar"):
        data = path.read_bytes()
        assert data[257:265] == b"ustar\x0000"
        assert data.endswith(bytes(1024))
        with tarfile.open(path) as archive:
            for member in archive:
                assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)


def test_an_index_row_has_36_bytes() -> None:
    assert INDEX_DTYPE.itemsize == 36


def test_a_set_can_be_sent_to_another_process_before_and_after_reading(directory: Path) -> None:
    shards = ShardSet(directory)
    assert pickle.loads(pickle.dumps(shards))[1] == shards[1]
    assert pickle.loads(pickle.dumps(shards))[1] == shards[1]
    assert len(pickle.dumps(shards)) < 4096
    child = os.fork()
    if child == 0:
        os._exit(0 if [shards[row].key for row in range(4)] == [f"demo-{row:010d}" for row in range(4)] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shards[2].key == "demo-0000000002"


def test_its_manifest_names_all_licences_and_has_an_identity_without_the_date(directory: Path) -> None:
    shards = ShardSet(directory)
    assert shards.license == "CC0-1.0 AND MIT"
    dated = {**shards.manifest, "created": "2030-01-01"}
    (directory / "manifest.json").write_text(json.dumps(dated))
    assert ShardSet(directory).manifest_sha256 == shards.manifest_sha256


def test_a_row_beyond_the_end_is_an_index_error(directory: Path) -> None:
    with pytest.raises(IndexError, match="there is no row 4"):
        ShardSet(directory)[4]


def flip(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"third", b"thxrd", "media_undecodable"),
        (b'"caption":"a kite"', b'"captoin":"a kite"', "row_malformed"),
        (b'"kind":"caption"', b'"kind":"captain"', "row_malformed"),
        (b'"caption":"a kite"', b'"caption":"      "', "row_malformed"),
        (b"demo-0000000002.png\0", b"demo-0000000009.png\0", "media_missing"),
    ],
)
def test_a_damaged_row_names_its_set_key_row_and_reason(directory: Path, old: bytes, new: bytes, reason: str) -> None:
    for path in directory.glob("*.tar"):
        if old in path.read_bytes():
            flip(path, old, new)
    shards, bad = ShardSet(directory), []
    for row in range(len(shards)):
        try:
            shards[row]
        except RowError as error:
            bad.append(error)
    (error,) = bad
    assert isinstance(error, RowError)
    assert str(error).startswith(f"{reason}: demo/train row {error.row} (demo-000000000{error.row}): ")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_unknown_key_is_named(directory: Path) -> None:
    data = to_json(ShardSet(directory).read(0)[0])
    with pytest.raises(ValueError, match="captionn: Unexpected keyword argument"):
        from_json(data.replace(b'"caption":', b'"captionn":"x","caption":'))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "caption", "messages": [said("a")]}, "kind caption needs"),
        ({"kind": "chat", "messages": [USER]}, "messages must end in a turn of the assistant"),
        ({"kind": "chat", "messages": [{"role": "narrator", "content": []}, said("a")]}, "role"),
        (
            {"kind": "chat", "messages": [{"role": "user", "content": [{"type": "image", "i": 1}]}, said("a")]},
            "medium 1",
        ),
        ({"kind": "preference", "messages": [USER], "chosen": [said("a")]}, "kind preference needs"),
    ],
)
def test_a_record_that_breaks_the_rules_of_its_kind_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record(0, [b"a"], **content)


def test_a_missing_or_unfinished_directory_is_refused_with_the_command_that_makes_it(directory: Path) -> None:
    with pytest.raises(InputError, match="does not exist; prepare it with: make data SOURCE=elsewhere"):
        ShardSet(directory.parent.parent / "elsewhere" / "train")
    (directory / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"is not finished .*make data SOURCE=demo"):
        ShardSet(directory)


def test_an_empty_set_is_refused(directory: Path) -> None:
    flip(directory / "manifest.json", b'"samples_out": 4', b'"samples_out": 0')
    with pytest.raises(InputError, match="holds no samples"):
        ShardSet(directory)


@pytest.mark.parametrize("name", ["index.npy", "shard-000000.tar"])
def test_a_copy_that_broke_off_is_refused(directory: Path, name: str) -> None:
    path = directory / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError, match=rf"{name} has \d+ bytes but the manifest says"):
        ShardSet(directory)
    path.unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        ShardSet(directory)


def test_an_index_of_another_length_than_the_manifest_is_refused(directory: Path) -> None:
    flip(directory / "manifest.json", b'"samples_out": 4', b'"samples_out": 5')
    with pytest.raises(InputError, match="lists 4 rows"):
        ShardSet(directory)


def test_a_foreign_manifest_is_refused(directory: Path) -> None:
    (directory / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="Invalid JSON"):
        ShardSet(directory)
    (directory / "manifest.json").write_text('{"format": "other"}')
    with pytest.raises(InputError, match="is not a manifest of format"):
        ShardSet(directory)


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"format":"vlm-shards/1"}', b'{"format":"vlm-shards/9"}', b"\xff\x00", None]
)
def test_a_damaged_manifest_is_refused_with_the_way_out(directory: Path, content: bytes | None) -> None:
    path = directory / "manifest.json"
    many = path.read_bytes().replace(b'"samples_out": 4', b'"samples_out": "many"')
    path.write_bytes(many if content is None else content)
    with pytest.raises(InputError, match=r"copy the directory again, or remove it .*: make data SOURCE=demo"):
        ShardSet(directory)


@pytest.mark.parametrize(("at", "junk"), [(0, b"zzzzzz"), (10, b"((((" * 20), (10, b"\xff" * 40), (8, b"\xff\xff")])
def test_a_damaged_index_is_refused_with_the_way_out(directory: Path, at: int, junk: bytes) -> None:
    path = directory / "index.npy"
    data = bytearray(path.read_bytes())
    data[at : at + len(junk)] = junk
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"index.npy.*: make data SOURCE=demo"):
        ShardSet(directory)


@pytest.mark.parametrize(("field", "value"), [("shard", 99), ("offset", 2**63), ("span", 2**31), ("json_off", 2**31)])
def test_an_index_row_that_points_nowhere_is_a_malformed_row(directory: Path, field: str, value: int) -> None:
    change_index(directory, field, 1, value)
    with pytest.raises(RowError, match=r"row_malformed: demo/train row 1 .*make data SOURCE=demo"):
        ShardSet(directory)[1]


def change_index(directory: Path, field: str, row: int, value: int, checksum: bool = True) -> None:
    path, manifest = directory / "index.npy", json.loads((directory / "manifest.json").read_text())
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    rows = np.load(path)
    rows[field][row] = value
    np.save(path, rows)
    manifest["index"] = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    if not checksum:
        manifest["index"]["sha256"] = before
    (directory / "manifest.json").write_text(json.dumps(manifest))


def test_an_index_that_differs_from_its_checksum_is_refused(directory: Path) -> None:
    change_index(directory, "pixels", 1, 7, checksum=False)
    with pytest.raises(InputError, match=r"index.npy is not the index that belongs to this manifest.*SOURCE=demo"):
        ShardSet(directory)


@pytest.mark.parametrize(("field", "row"), [("offset", 0), ("shard", -1), ("span", -1)])
def test_a_large_index_of_other_shards_is_told_by_its_ends(
    directory: Path, monkeypatch: pytest.MonkeyPatch, field: str, row: int
) -> None:
    monkeypatch.setattr("vlm.data.shards.HASHED", 0)
    assert len(ShardSet(directory)) == 4
    change_index(directory, field, row, 512)
    with pytest.raises(InputError, match="is not the index that belongs to this manifest"):
        ShardSet(directory)


def test_a_row_of_another_set_or_number_does_not_belong_there(directory: Path) -> None:
    rows = np.load(directory / "index.npy")
    for field in rows.dtype.names:
        change_index(directory, field, 2, int(rows[field][3]))
    with pytest.raises(RowError, match=r"row_malformed: demo/train row 2 .*: demo/train demo-0000000003 lies there"):
        ShardSet(directory)[2]
    for path in directory.glob("*.tar"):
        path.write_bytes(path.read_bytes().replace(b'"split":"train"', b'"split":"brain"'))
    with pytest.raises(RowError, match="demo/brain demo-0000000000 lies there; index and shards do not belong"):
        ShardSet(directory)[0]


def test_the_index_tells_what_a_row_costs_without_reading_it(directory: Path) -> None:
    shards = ShardSet(directory)
    record, _ = shards.read(1)
    for path in directory.glob("*.tar"):
        path.unlink()
    assert shards.costs(1) == (len(to_json(record)), 2, 2, 12)
    assert shards.costs(3)[1:] == (0, 0, 0)
    with pytest.raises(IndexError, match="there is no row 4"):
        shards.costs(4)


def test_a_shard_that_goes_missing_while_running_stops_the_run_with_its_name(directory: Path) -> None:
    shards = ShardSet(directory)
    assert shards[0].key == "demo-0000000000"
    for path in directory.glob("*.tar"):
        path.unlink()
    shards.close()
    with pytest.raises(RunError, match=r"shard-000000.tar cannot be read any more .No such file.*same command"):
        shards[0]


def test_a_shard_that_is_cut_while_running_loses_the_rows_behind_the_cut_only(directory: Path) -> None:
    shards = ShardSet(directory)
    entry = np.load(directory / "index.npy")[1]
    os.truncate(directory / shards.manifest["shards"][entry["shard"]]["name"], int(entry["offset"]) + 700)
    with pytest.raises(RowError, match=r"row_malformed: .*the shard ends after 700 of"):
        shards[1]


def test_members_in_another_order_than_their_record_says_are_found(directory: Path) -> None:
    for path in directory.glob("*.tar"):
        data = path.read_bytes()
        swapped = data.replace(b"0001.00.png", b"0001.xx.png").replace(b"0001.01.png", b"0001.00.png")
        path.write_bytes(swapped.replace(b"0001.xx.png", b"0001.01.png"))
    shards = ShardSet(directory)
    with pytest.raises(RowError, match=r"media_missing: .*found member 'demo-0000000001.01.png' in place of 00.png"):
        shards[1]
    assert shards[0].key == "demo-0000000000"


def test_only_so_many_files_are_open_at_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.data.files.OPEN", 2)
    shards, before = ShardSet(directory), len(os.listdir("/proc/self/fd"))
    assert [shards[row].key for row in (0, 1, 2, 3, 0)] == [f"demo-000000000{row}" for row in (0, 1, 2, 3, 0)]
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_reading_a_large_index_at_random_does_not_make_the_process_grow(tmp_path: Path) -> None:
    grown = int(subprocess.run([sys.executable, "-m", "benchmarks.index", "1000000", str(tmp_path), "--growth"],
                               check=True, capture_output=True, text=True, timeout=120).stdout)  # fmt: skip
    assert grown < 15 * 2**20  # a mapped index would grow by 34 MiB


def test_a_split_or_set_that_is_not_there_is_told_with_those_that_are(directory: Path) -> None:
    with pytest.raises(InputError, match=r"has no split 'trian'; splits there: train$"):
        ShardSet(directory.parent / "trian")
    with pytest.raises(InputError, match=r"make data SOURCE=dmeo. Sets prepared in .*: demo$"):
        ShardSet(directory.parent.parent / "dmeo" / "train")
