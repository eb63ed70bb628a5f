"""Clips in prepared sets: one medium with all its frames, one read a sample, and rules that a record cannot break."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.verify import verify_split
from tests.data.clip_maker import clip
from vlm.contracts.sample import Turn
from vlm.data.canonical import Record, check, from_json, grouped, to_json, to_sample
from vlm.data.shards import RowError, ShardSet

Prepare = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def prepared(prepare: Prepare, tmp_path: Path) -> ShardSet:
    """Three clips: 30, 45 and 60 frames of ten a second."""
    return _prepared(prepare, tmp_path)


def _prepared(prepare: Prepare, tmp_path: Path, *words: str) -> ShardSet:
    folder = tmp_path / "clips"
    folder.mkdir()
    for number, name in enumerate(("bigbuckbunny", "bikes", "carphone_pristine")):
        (folder / f"{name}.mp4").write_bytes(clip(30 + 15 * number))
    prepare("clips_small", folder, "against=[]", *words)
    return ShardSet(tmp_path / "out" / "clips_small" / "train")


def test_a_clip_is_one_medium_with_its_frames_and_their_seconds(prepared: ShardSet) -> None:
    sample = prepared[1]
    (medium,) = sample.media
    assert (medium.type, medium.data, medium.seconds) == ("frames", b"", (0, 1, 2, 3, 4))
    assert len(medium.frames) == 5
    assert sample.turns[0] == Turn("user", (0,))


def test_the_index_counts_frames_and_media_apart(prepared: ShardSet) -> None:
    index = np.load(prepared.directory / "index.npy")
    assert index["frames"].tolist() == [3, 5, 6] == [prepared.costs(row).frames for row in range(3)]
    assert index["media"].tolist() == [1, 1, 1]
    assert index["pixels"].tolist() == [80 * 64] * 3


def test_frames_lie_beside_each_other_under_names_that_webdataset_groups(prepared: ShardSet) -> None:
    record, payloads = prepared.read(0)
    assert record.media[0].members == ["000.jpg", "001.jpg", "002.jpg"]
    assert [files for _, files in grouped(record, payloads)] == [tuple(payloads)]
    assert replace(record.media[0], member="01.jpg").members[2] == "01.002.jpg"


def test_a_sample_is_one_read(prepared: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared[0]
    reads, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda *what: reads.append(what) or pread(*what))
    prepared[2]
    assert len(reads) == 2  # the row of the index, and the sample


def test_text_alone_keeps_the_number_of_frames(prepared: ShardSet) -> None:
    (medium,) = prepared.text(2).media
    assert medium.frames == (b"",) * 6


def test_a_changed_frame_is_told_by_reading_and_by_verify(prepared: ShardSet) -> None:
    record, payloads = prepared.read(1)
    shard = prepared.directory / "shard-000000.tar"
    data = shard.read_bytes()
    at = data.index(payloads[3]) + 200
    shard.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
    prepared.close()
    with pytest.raises(RowError, match=f"media_undecodable.*{record.key}.jpg changed"):
        prepared[1]
    assert verify_split(prepared.directory, workers=0).faults.counts["media_changed"] == 1


def test_a_frame_under_another_name_or_without_a_size_is_told(prepared: ShardSet) -> None:
    shard = prepared.directory / "shard-000000.tar"
    data = shard.read_bytes()
    at = data.index(b"clips_small-0000000001.002.jpg")
    shard.write_bytes(data[: at + 23] + b"009" + data[at + 26 :])
    with pytest.raises(RowError, match="media_missing"):
        prepared[1]
    shard.write_bytes(data[: at + 124] + b"no size" + data[at + 131 :])
    prepared.close()
    with pytest.raises(RowError, match=r"row_malformed.*tells no size"):
        prepared[1]


def test_a_file_can_be_kept_whole(prepare: Prepare, tmp_path: Path) -> None:
    shards = _prepared(prepare, tmp_path, "++source.clips.store=mp4")
    record, payloads = shards.read(0)
    entry, (medium,) = record.media[0], shards[0].media
    assert payloads == [(tmp_path / "clips" / "bigbuckbunny.mp4").read_bytes()]
    assert (medium.type, medium.data, medium.frames) == ("video", payloads[0], ())
    assert (entry.member, entry.n, entry.t, entry.fps) == ("mp4", 30, [0, 2.9], 10)
    assert shards.costs(0).frames == 30
    assert not verify_split(shards.directory, workers=0).faults.counts


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"t": [0.0, 1.0]}, "tells 2 seconds of 3"),
        ({"t": [0.0, 2.0, 1.0]}, "do not grow"),
        ({"t": [0.0, 1.0, 1.0]}, "do not grow"),
        ({"n": None}, "needs n and t"),
        ({"t": None}, "needs n and t"),
        ({"n": 1, "t": [0.0]}, "has 1 frame"),
        ({"type": "image"}, "which clips have"),
        ({"type": "video"}, "tells 3 seconds of 2"),
    ],
)
def test_a_record_that_breaks_a_rule_of_clips_is_refused(prepared: ShardSet, change: dict, told: str) -> None:
    record, _ = prepared.read(0)
    with pytest.raises(ValueError, match=told):
        check(replace(record, media=[replace(record.media[0], **change)]))


def test_a_record_goes_through_json_and_its_members_have_to_be_all_there(prepared: ShardSet) -> None:
    record, payloads = prepared.read(0)
    again: Record = from_json(to_json(record))
    assert again == record
    with pytest.raises(ValueError, match="2 members"):
        to_sample(record, payloads[:2])
