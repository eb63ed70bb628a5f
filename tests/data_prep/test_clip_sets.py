"""The published video sets, a few rows each in their true form, with their traps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.sets.webvid import seconds
from tests.data.clip_maker import clip, marked, number_of
from tests.data_prep.conftest import encoded, verify_shards
from tests.data_prep.test_archives import cut
from tests.data_prep.test_places import make_tar, make_zip
from vlm.contracts.errors import InputError
from vlm.data.canonical import MediumPart, Record
from vlm.data.licences import LicenceRefused
from vlm.data.pictures import decode
from vlm.data.shards import ShardSet

Prepare = Callable[..., list[dict[str, Any]]]
ALL = "++source.holdout=null"
ONE = "++source.expected={train: null}"
LOOSE = [f"++source.budget.{reason}=100" for reason in ("annotation_missing", "video_short", "video_unreadable")]
LOOSE += [
    f"++source.budget.{reason}=100" for reason in ("media_missing", "row_malformed", "turns_bad", "media_truncated")
]


def said(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]


def numbered(number: int) -> bytes:
    return clip(marked(n + 100 * number) for n in range(30))


@pytest.fixture
def made(prepare: Prepare, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], list[Record], dict[int, str]]]:
    """Manifest, records, and row -> reason of what was skipped."""

    def run(source: str, folder: Path, *words: str) -> tuple[dict[str, Any], list[Record], dict[int, str]]:
        (manifest,) = prepare(source, folder, ALL, ONE, "against=[]", *LOOSE, *words)
        split = tmp_path / "out" / source / "train"
        shards = ShardSet(split)
        assert verify_shards(split) == []
        lines = map(json.loads, (split / "skipped.jsonl").read_text().splitlines())
        return (
            manifest,
            [shards.read(row)[0] for row in range(len(shards))],
            {one["row"]: one["reason"] for one in lines},
        )

    return run


def first_frame(tmp_path: Path, source: str, row: int) -> int:
    _, payloads = ShardSet(tmp_path / "out" / source / "train").read(row)
    return number_of(decode(payloads[0], "frame"))


# OpenVid-1M

OPENVID = "video,caption,aesthetic score,motion score,temporal consistency score,camera motion,frame,fps,seconds\n"


@pytest.fixture
def openvid(tmp_path: Path) -> Path:
    home = tmp_path / "openvid"
    (home / "data" / "train").mkdir(parents=True)
    rows = [f'inv_{n}.mp4,"A cyclist, number {n}.",5.1,3.2,0.99,pan_left,30,10.0,3.0\n' for n in range(5)]
    rows += ["inv_1.mp4,,5.1,3.2,0.99,static,30,10.0,3.0\n", "short.mp4,Too short.,5,3,1,static,1,10.0,0.1\n"]
    (home / "data" / "train" / "OpenVid-1M.csv").write_text(OPENVID + "".join(rows))
    (home / "data" / "train" / "OpenVidHD.csv").write_text(OPENVID + rows[0])
    make_zip(home / "OpenVid_part0.zip", {f"inv_{n}.mp4": numbered(n) for n in range(2)} | {"short.mp4": clip(1)})
    make_zip(home / "OpenVid_part102.zip", {f"sub/inv_{n}.mp4": numbered(n) for n in range(2, 4)})
    cut(home / "OpenVid_part102.zip", 3000)
    return home


def test_openvid_reads_its_table_once_and_its_zips_in_place_also_cut_ones(
    made: Callable, openvid: Path, tmp_path: Path
) -> None:
    manifest, records, skipped = made("openvid_1m", openvid)
    assert [record.caption for record in records] == [f"A cyclist, number {n}." for n in range(4)]
    assert [first_frame(tmp_path, "openvid_1m", row) for row in range(4)] == [0, 100, 200, 300]
    assert skipped == {4: "excluded", 5: "annotation_missing", 6: "video_short"}
    assert records[0].meta == {
        "camera_motion": "pan_left", "aesthetic_score": 5.1, "motion_score": 3.2, "temporal_consistency_score": 0.99,
    }  # fmt: skip
    assert manifest["license"]["flags"] == {"model_output": ["CC-BY-4.0"], "no_media_rights": ["CC-BY-4.0"]}
    assert manifest["clip_hist"] == {"seconds": {"<=2": 4}, "frames": {"<=4": 4}, "rate": {"<=10": 4}}


def test_openvid_says_which_part_is_missing_where_all_should_be_there(made: Callable, openvid: Path) -> None:
    assert made("openvid_1m", openvid, "++source.reader.partial=false")[2][4] == "media_missing"


def test_another_header_is_refused(made: Callable, openvid: Path) -> None:
    table = openvid / "data" / "train" / "OpenVid-1M.csv"
    table.write_text(table.read_text().replace("aesthetic score", "aesthetic_score"))
    with pytest.raises(InputError, match="Expected the header: video, caption, aesthetic score"):
        made("openvid_1m", openvid)


# WebVid


def test_webvid_takes_local_clips_alone_and_only_under_the_widest_policy(made: Callable, tmp_path: Path) -> None:
    home = tmp_path / "webvid"
    (home / "000001_000050").mkdir(parents=True)
    (home / "000001_000050" / "7.mp4").write_bytes(numbered(7))
    rows = ["7,https://invalid/7.mp4,PT00H00M03S,000001_000050,A mill turns", "8,x,PT00H00M03S,000001_000050,Gone"]
    rows += ["9,x,three,000001_000050,Odd"]
    (home / "results.csv").write_text("videoid,contentUrl,duration,page_dir,name\n" + "\n".join(rows))
    (home / "000001_000050" / "9.mp4").write_bytes(numbered(9))
    _, (record,), skipped = made("webvid", home)
    assert (record.caption, record.license, record.meta) == ("A mill turns", "LicenseRef-withdrawn", {"duration": 3})
    assert skipped == {1: "excluded", 2: "row_malformed"}
    for policy in ("no_noncommercial", "permissive_only"):
        with pytest.raises(LicenceRefused):
            made("webvid", home, f"licence_policy={policy}")
    assert seconds("PT01H02M03S") == 3723


# LLaVA-Video-178K


@pytest.fixture
def llava_video(tmp_path: Path) -> Path:
    part = tmp_path / "llava_video" / "0_30_s_youtube_v0_1"
    part.mkdir(parents=True)

    def row(number: int, video: str, *texts: str) -> dict[str, Any]:
        return {"id": f"r{number}", "conversations": said(*texts), "data_source": "inv", "video": video}

    captions = [row(n, f"yt/{n}.mp4", "<image>\nDescribe it.", f"Clip {n}.") for n in range(3)]
    asked = [row(10 + n, f"yt/{n}.mp4", "<image>\nWhat turns?", "A mill.", "Fast?", "No.") for n in range(2)]
    asked.append(row(12, "yt/0.mp4", "No placeholder?", "Added."))
    asked.append(row(13, "yt/0.mp4", "<image><image>Two?", "Bad."))
    (part / "0_30_s_youtube_v0_1_cap_processed.json").write_text(json.dumps(captions))
    (part / "0_30_s_youtube_oe_v0_1_qa_processed.json").write_text(json.dumps(asked))
    files = {f"yt/{n}.mp4": numbered(n) for n in (1, 0)}
    make_tar(part / "0_30_s_youtube_v0_1_videos_1.tar.gz", files | {"yt/unknown.mp4": numbered(9)}, "w:gz")
    return part.parent


def test_each_row_about_a_clip_stays_a_sample_of_its_own_and_reads_the_tar_once(
    made: Callable, llava_video: Path, tmp_path: Path
) -> None:
    manifest, records, _ = made("llava_video_178k", llava_video, "++source.budget.placeholder_mismatch=50")
    assert [record.src.id for record in records] == ["r1", "r11", "r0", "r10", "r12"]  # in the order of the tar
    assert [first_frame(tmp_path, "llava_video_178k", row) for row in range(5)] == [100, 100, 0, 0, 0]
    assert records[1].messages is not None
    assert records[1].messages[0].content[0] == MediumPart("video", 0)
    assert len(records[1].messages) == 4
    counts = manifest["counts"]
    assert counts["skipped"] == {"annotation_missing": 1, "excluded": 1, "placeholder_mismatch": 1}
    assert counts["repaired"] == {"placeholder_added": 1}
    assert counts["rows_in"] == 8
    assert set(manifest["license"]["flags"]) == {"noncommercial", "model_output", "no_media_rights"}


def test_the_same_from_unpacked_clips_comes_in_the_order_of_the_rows(made: Callable, llava_video: Path) -> None:
    for number in (0, 1):
        path = llava_video / "open" / "yt" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(numbered(number))
    words = ["++source.budget.placeholder_mismatch=50", "++source.reader.unpacked=open"]
    _, records, skipped = made("llava_video_178k", llava_video, *words)
    assert [record.src.id for record in records] == ["r0", "r1", "r10", "r11", "r12"]
    assert "annotation_missing" not in skipped.values()


# VISTA-400K


def test_vista_clips_are_folders_of_frames(made: Callable, tmp_path: Path) -> None:
    task = tmp_path / "vista" / "temporal_niah_qa"
    task.mkdir(parents=True)
    frames = {f"clips/a/{n}.jpg": encoded_frame(n) for n in range(12)}
    make_tar(task / "temporal_niah_qa_1.tar", frames | {"clips/b/0.jpg": encoded_frame(0)})
    rows = [
        {"id": n, "video": f"clips/{name}", "conversations": said("<video>\nWhen?", "Now.")}
        for n, name in enumerate("abc")
    ]
    (task / "temporal_niah_qa.json").write_text(json.dumps(rows))
    words = ["++source.reader.tasks=[temporal_niah_qa]", "++source.reader.rate=2.0"]
    manifest, (record,), skipped = made("vista_400k", tmp_path / "vista", *words)
    assert (record.media[0].n, record.media[0].t) == (6, [0, 1, 2, 3, 4, 5])
    _, payloads = ShardSet(tmp_path / "out" / "vista_400k" / "train").read(0)
    assert [number_of(decode(data, "frame")) for data in payloads] == [0, 2, 4, 6, 8, 10]  # 10.jpg behind 9.jpg
    assert skipped == {1: "video_short", 2: "excluded"}
    assert set(manifest["license"]["flags"]) == {"model_output", "no_media_rights"}


def encoded_frame(number: int) -> bytes:
    from PIL import Image

    return encoded(Image.fromarray(marked(number)), "JPEG", quality=95)


# Vript


def scene(number: int, integrity: bool = True, **caption: str) -> dict[str, Any]:
    told = {
        "shot_type": "close-up",
        "camera_movement": "static",
        "content": f"Hands, {number}.",
        "scene_title": "Dough",
    }
    meta = {"video_id": "vInv", "video_title": "t", "num_clips": 4, "integrity": integrity}
    return {"meta": meta, "clip_id": f"vInv-Scene-{number:03d}", "caption": told | caption}


@pytest.fixture
def vript(tmp_path: Path) -> Path:
    home = tmp_path / "vript"
    (home / "vript_captions").mkdir(parents=True)
    (home / "vript_long_videos_clips").mkdir()
    rows = [scene(1), scene(2, content=""), scene(3, integrity=False), scene(4)]
    lines = "\n".join(map(json.dumps, rows))
    (home / "vript_captions" / "vript_long_videos_captions.jsonl").write_text(lines)
    held = {f"clips_1/vInv/vInv-Scene-{n:03d}.mp4": numbered(n) for n in (1, 2, 9)}
    make_zip(home / "vript_long_videos_clips" / "clips_1_of_2.zip", held)
    return home


def test_vript_tells_scenes_by_their_content_and_makes_up_no_caption(made: Callable, vript: Path) -> None:
    manifest, (record,), _ = made("vript", vript)
    assert record.caption == "Hands, 1."
    assert record.meta == {"video_id": "vInv", "title": "t", "camera_movement": "static", "scene_title": "Dough",
                           "shot_type": "close-up"}  # fmt: skip
    assert manifest["counts"]["skipped"] == {"annotation_missing": 2, "excluded": 2}


def test_vript_can_tell_all_of_a_caption(made: Callable, vript: Path) -> None:
    words = "++source.reader.tells=[scene_title,content,camera_movement]"
    assert made("vript", vript, words)[1][0].caption == "Dough. Hands, 1. static."


def test_the_zipped_captions_of_vript_are_another_form(made: Callable, vript: Path) -> None:
    path = vript / "vript_captions" / "vript_long_videos_captions.jsonl"
    path.write_text(json.dumps({"meta": {}, "data": {"vInv-Scene-001": {}}}))
    with pytest.raises(InputError, match="one row a video"):
        made("vript", vript)


# ShareGPT4Video


def test_the_whole_clip_is_told_by_the_caption_whose_name_is_the_text_minus_one(made: Callable, tmp_path: Path) -> None:
    home = tmp_path / "sharegpt"
    (home / "zip_folder" / "panda").mkdir(parents=True)

    def row(name: str, zip: str, *captions: tuple[str, str]) -> dict[str, Any]:
        told = [{"idx": idx, "content": text} for idx, text in captions]
        return {"video_id": name, "video_path": f"panda/{name}.mp4", "timestamp": ["00:00"], "keyframe": [0], "captions": told,
                "zip_folder": zip}  # fmt: skip

    rows = [
        row("p1", "panda_videos_1.zip", ("0", "First."), ("-1", "All of it."), ("2", "Then.")),
        row("p2", "panda_videos_1.zip", ("0", "First.")),
        row("p3", "panda_videos_2.zip", ("-1", "Elsewhere.")),
        row("p4", "panda_videos_1.zip", ("-1", "Cut short.")),
        row("p5", "panda_videos_1.zip", ("-1", "Lost.")),
    ]
    (home / "sharegpt4video_40k.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = {"panda/p1.mp4": numbered(1), "panda/p2.mp4": numbered(2), "panda/p4.mp4": numbered(4)[:900]}
    make_zip(home / "zip_folder" / "panda" / "panda_videos_1.zip", files)
    manifest, (record,), skipped = made("sharegpt4video", home)
    assert record.caption == "All of it."
    assert record.meta is not None
    assert record.meta["segments"] == [{"idx": "0", "content": "First."}, {"idx": "2", "content": "Then."}]
    assert skipped == {1: "annotation_missing", 2: "excluded", 3: "video_unreadable", 4: "media_missing"}
    assert "noncommercial" in manifest["license"]["flags"]
