"""Frames out of clips: the right moments of every kind of file, in little memory, and a name for each fault."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from tests.data.clip_maker import clip, live, marked, number_of, turned
from tests.data_prep.conftest import encoded, picture
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Medium
from vlm.data.clips import ClipError, FrameCount, choose, decode_clip, frames_of, moments

SIX = [50, 150, 250, 350, 450, 550]  # of 600 frames, the middles of six equal stretches


def numbers(source: bytes | Path | BytesIO, most: int, **options) -> list[int]:
    return [number_of(pixels) for pixels in decode_clip(source, "clip", most, **options).frames]


def reason(source: bytes | Path, most: int = 8) -> str:
    with pytest.raises(ClipError) as caught:
        decode_clip(source, "clip", most)
    return caught.value.reason


def outcome(data: bytes) -> str:
    try:
        found = decode_clip(data, "clip", 4)
    except ClipError as error:
        return error.reason
    return "read" if len(found.frames) >= 2 else "too little"


# Which moments


def test_uniform_moments_are_the_middles_of_equal_stretches() -> None:
    assert moments(0, 8, 4) == [1, 3, 5, 7]
    assert moments(2, 3, 1) == [2.5]


def test_stored_frames_are_chosen_likewise_and_all_of_few_are_taken() -> None:
    assert choose(8, 4) == [1, 3, 5, 7]
    assert choose(3, 8) == [0, 1, 2]
    assert choose(64, 1) == [32]


def test_a_long_clip_at_one_frame_a_second_is_spread_over_all_of_it_and_never_cut_to_its_beginning() -> None:
    assert moments(0, 4.5, 64, "per_second") == [0, 1, 2, 3, 4]
    spread = moments(0, 640, 64, "per_second")
    assert (len(spread), spread[0], spread[-1]) == (64, 5.0, 635.0)


def test_the_published_cut_takes_the_first_and_nothing_of_the_rest() -> None:
    assert moments(0, 640, 64, "first") == list(range(64))


@pytest.mark.parametrize("most", [0, 65])
def test_none_or_more_than_64_frames_are_refused_at_the_configuration_and_at_the_call(most: int) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(FrameCount).validate_python(most)
    with pytest.raises(InputError, match="between 1 and 64"):
        decode_clip(b"", "clip", most)


# Which frames


@pytest.mark.parametrize("key_every", [12, 10_000])
@pytest.mark.parametrize("form", ["mp4", "mpegts", "matroska", "h264", "flv"])
def test_each_container_gives_the_same_frames_whether_it_has_many_key_frames_or_one(form: str, key_every: int) -> None:
    assert numbers(clip(600, form=form, key_every=key_every), 6) == SIX


@pytest.mark.parametrize("form", ["matroska", "mpegts"])
def test_a_file_without_length_count_and_index_gives_them_too(form: str) -> None:
    assert numbers(live(600, form), 6) == SIX


def test_path_bytes_and_stream_give_the_same(tmp_path: Path) -> None:
    data = clip(30)
    (tmp_path / "a:b.mp4").write_bytes(data)
    assert numbers(data, 3) == numbers(tmp_path / "a:b.mp4", 3) == numbers(BytesIO(data), 3) == [5, 15, 25]


def test_where_the_rate_varies_the_frame_on_the_screen_counts_not_its_number() -> None:
    found = decode_clip(clip(6, stamps=[0, 1, 2, 50, 51, 90]), "clip", 9)
    assert [number_of(pixels) for pixels in found.frames] == [2, 4]
    assert found.seconds == [0.2, 5.1]


def test_seconds_count_from_the_beginning_of_the_picture() -> None:
    assert decode_clip(clip(30, form="mpegts"), "clip", 3).seconds == [0.5, 1.5, 2.5]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_clip_filmed_upright_is_turned_as_its_display_matrix_says(quarters: int) -> None:
    (pixels,) = decode_clip(turned(clip(9), quarters), "clip", 1).frames
    assert pixels.shape[:2] == ((80, 64) if quarters % 2 else (64, 80))
    assert number_of(np.rot90(pixels, quarters)) == 4


def test_frames_shrink_while_they_come() -> None:
    assert decode_clip(clip(9), "clip", 2, longest=40).frames[0].shape == (32, 40, 3)
    assert decode_clip(clip(9), "clip", 2, least=(16, 16)).frames[0].shape == (32, 40, 3)
    assert decode_clip(turned(clip(9), 1), "clip", 2, longest=40).frames[0].shape == (40, 32, 3)


def test_what_is_kept_of_a_frame_is_made_as_it_comes() -> None:
    assert decode_clip(clip(30), "clip", 3, keep=number_of).frames == [5, 15, 25]


def test_frames_may_change_their_size_on_the_way() -> None:
    first, second = clip(20, form="h264"), clip((marked(n, (160, 128)) for n in range(20)), form="h264")
    found = decode_clip(first + second, "clip", 4).frames
    assert [pixels.shape[:2] for pixels in found] == [(64, 80)] * 2 + [(128, 160)] * 2


def test_a_medium_of_any_type_gives_frames() -> None:
    still = Medium("image", encoded(picture(1)), "0")
    assert [len(frames_of(still, "k", most).frames) for most in (1, 8)] == [1, 1]
    stored = tuple(encoded(picture(number)) for number in range(8))
    medium = Medium("frames", b"", "0", stored, tuple(map(float, range(8))))
    assert frames_of(medium, "k", 4).seconds == [1, 3, 5, 7]
    assert frames_of(Medium("video", clip(30), "0"), "k", 3).seconds == [0.5, 1.5, 2.5]


# What is wrong with files


def test_sound_alone_and_sound_with_a_cover_are_unreadable_and_sound_beside_pictures_is_dropped() -> None:
    assert reason(clip(0, sound=2)) == "video_unreadable"
    assert numbers(clip(30, sound=1), 3) == [5, 15, 25]


def test_one_frame_is_short_unless_one_is_asked_for() -> None:
    assert reason(clip(1)) == "video_short"
    assert numbers(clip(1), 1) == [0]


@pytest.mark.parametrize("data", [b"", b"no clip at all" * 50, clip(30, faststart=False)[:1500]])
def test_what_is_no_clip_or_has_lost_its_table_is_unreadable(data: bytes) -> None:
    assert reason(data) == "video_unreadable"


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.mp4") == "media_missing"


@pytest.mark.parametrize(
    "listing",
    ["#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"],
)
def test_a_list_that_names_other_files_opens_none_of_them(listing: str, tmp_path: Path) -> None:
    (tmp_path / "secret.ts").write_bytes(clip(30, form="mpegts"))
    assert reason(listing.format(tmp_path / "secret.ts").encode()) == "video_unreadable"


def test_of_a_broken_tail_what_is_there_is_kept_spread_over_it_and_told() -> None:
    whole = clip(600)
    found = decode_clip(whole[: len(whole) // 2], "clip", 8)
    shown = [number_of(pixels) for pixels in found.frames]
    assert len(shown) == 8
    assert shown == sorted(set(shown))
    assert 150 < shown[-1] < 320
    assert "tail_missing" in found.repaired


def test_damage_in_the_middle_costs_the_frames_it_hits() -> None:
    data = bytearray(clip(np.random.default_rng(n).integers(0, 255, (64, 80, 3), dtype=np.uint8) for n in range(60)))
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    found = decode_clip(bytes(data), "clip", 16)
    assert 2 <= len(found.frames) < 16
    assert found.repaired == ("frames_damaged",)


@pytest.mark.parametrize("form", ["mp4", "mpegts", "matroska", "avi"])
def test_whatever_is_flipped_or_cut_a_clip_is_read_or_refused_by_name(form: str) -> None:
    whole, dice = clip(30, form=form, codec="mpeg4" if form == "avi" else "libx264"), random.Random(form)
    for _ in range(60):
        data = bytearray(whole[: dice.randrange(len(whole) // 3, len(whole))])
        for _ in range(dice.randrange(20)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        assert outcome(bytes(data)) in ("read", "video_unreadable", "video_short", "media_huge")


# Hours


MEASURE = """
import resource, sys
from vlm.data.clips import decode_clip
decode_clip(sys.argv[2], "warm", 64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = decode_clip(sys.argv[1], "clip", 64)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(found.frames))
"""


def test_two_hours_take_no_more_memory_than_a_minute(tmp_path: Path) -> None:
    clip((marked(n, (160, 128)) for n in range(240)), 4, path=tmp_path / "minute.mp4")
    clip((marked(n, (160, 128)) for n in range(7200)), 1, path=tmp_path / "hours.mp4")  # all its pixels: 442 MB
    words = [sys.executable, "-c", MEASURE, str(tmp_path / "hours.mp4"), str(tmp_path / "minute.mp4")]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert int(told[1]) == 64
    assert int(told[0]) < 16_000  # kB


def test_ten_hours_are_sought_not_decoded(tmp_path: Path) -> None:
    clip(36_000, 1, path=tmp_path / "day.mp4", key_every=60)
    start = time.process_time()
    found = decode_clip(tmp_path / "day.mp4", "clip", 64, "per_second")
    seconds = time.process_time() - start
    assert [number_of(pixels) for pixels in found.frames] == [int((n + 0.5) * 36_000 / 64) for n in range(64)]
    start = time.process_time()
    decode_clip(tmp_path / "day.mp4", "clip", 2)
    assert seconds < 5
    assert seconds < 40 * (time.process_time() - start)
