"""Clips in rows: a frame is a view, a still picture a clip of equal frames that is encoded once."""

from __future__ import annotations

from hashlib import sha256
from io import BytesIO

import pytest
import torch
from PIL import Image

from tests.data.clip_maker import clip, marked
from vlm.contracts.batch import VISUAL
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Medium, Sample, Turn
from vlm.contracts.vision import FixedCount, VisionSpec
from vlm.data.processor import Processor
from vlm.data.template import Template
from vlm.data.tokens import Characters
from vlm.data.views import Resize

PIXELS = {"mean": [0.0] * 3, "std": [1.0] * 3}


def processor(frames: int = 4, still: int = 1, tokens: int = 1) -> Processor:
    template = Template("<bos>", "<eos>", prompt=True, max_tokens=8)
    views = Resize(40, **PIXELS, frames=frames, still=still)
    return Processor(views, Characters("abc ?", 7), template, VisionSpec(4, FixedCount(tokens)), positions=64)


def stored(count: int) -> Medium:
    """A clip of which frame number n is grey n * 10."""
    files = []
    for number in range(count):
        buffer = BytesIO()
        Image.new("RGB", (50, 40), (number * 10,) * 3).save(buffer, "PNG")
        files.append(buffer.getvalue())
    name = sha256(b"".join(files)).hexdigest()
    return Medium("frames", b"", name, tuple(files), tuple(map(float, range(count))))


def sample(*media: Medium) -> Sample:
    return Sample("s", (Turn("user", (*range(len(media)), "a?")), Turn("assistant", ("b",))), media)


def picture(level: int = 70) -> Medium:
    buffer = BytesIO()
    Image.new("RGB", (50, 40), (level,) * 3).save(buffer, "PNG")
    return Medium("image", buffer.getvalue(), sha256(buffer.getvalue()).hexdigest())


def levels(views) -> list[int]:
    return [int(view[0, 0, 0]) for view in views]


def test_every_frame_is_a_view_in_its_order_up_to_the_most_that_are_evenly_taken():
    short = processor().example(sample(stored(3)))
    assert levels(short.views) == [0, 10, 20]
    assert short.slots == (0, 1, 2)
    assert int((short.ids == VISUAL).sum()) == 3
    assert levels(processor().example(sample(stored(8))).views) == [10, 30, 50, 70]
    assert len(set(short.pictures)) == 1  # one medium


def test_a_file_is_read_by_its_moments():
    data = clip(20, rate=10)
    example = processor().example(sample(Medium("video", data, sha256(data).hexdigest())))
    assert len(example.views) == 4
    assert not torch.equal(example.views[0], torch.from_numpy(marked(0, (40, 40))).permute(2, 0, 1))


def test_a_picture_stands_there_as_often_as_asked_and_is_one_view():
    example = processor(still=8, tokens=2).example(sample(picture(), stored(2), picture(90)))
    assert levels(example.views) == [70, 0, 10, 90]
    assert example.slots == (0,) * 8 + (1, 2) + (3,) * 8
    assert int((example.ids == VISUAL).sum()) == 2 * 18


def test_clips_and_pictures_share_a_batch_without_padded_frames():
    made = processor(still=2)
    batch = made.collate([made.example(sample(stored(4))), made.example(sample(picture())), made.example(sample())])
    assert len(batch.views) == 5
    assert batch.slots.tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 4], [1, 4]]
    assert int((batch.ids[2] == VISUAL).sum()) == 0


def test_an_open_row_keeps_what_it_shows_once():
    made = processor(still=3)
    turns = (Turn("user", (0, "a?")),)
    example = made.open_example(Sample("s", turns, (picture(),)))
    assert len(example.views) == 1
    assert example.slots == (0, 0, 0)
    asked = made.question("a?", [Image.new("RGB", (50, 40), (70,) * 3)])
    assert asked.slots == (0, 0, 0)
    torch.testing.assert_close(asked.views[0], example.views[0])


def test_a_model_of_pictures_refuses_a_clip_with_the_key_that_lets_it_in():
    with pytest.raises(InputError, match=r"media_unexpected: .* encoder\.views\.frames"):
        processor(frames=0).example(sample(stored(3)))


def test_more_frames_than_positions_are_refused_and_never_cut():
    with pytest.raises(InputError, match="media_many: 4 views"):
        processor(tokens=20).example(sample(stored(9)))


@pytest.mark.parametrize(
    ("media", "frames", "expected"), [(1, 1, (18, 1)), (1, 3, (13, 3)), (1, 9, (14, 4)), (0, 0, (10, 0))]
)
def test_the_cost_of_a_row_counts_frames_as_views_and_stills_once(media, frames, expected):
    cost = processor(still=8).cost(10.0, media, frames)
    assert (cost.tokens, cost.views) == expected
