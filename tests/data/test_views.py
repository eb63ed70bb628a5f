"""From a decoded picture to the encoder's input: how it is resized, and what an augmentation may do."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from vlm.data.pictures import decode
from vlm.data.views import BlockMean, Resize

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    # Less than full contrast: bicubic overshoot stays within the byte, where rounding alone is left to compare.
    return np.random.default_rng(seed).integers(64, 192, (height, width, 3), dtype=np.uint8)


def maker(size: int = 56, **options) -> Resize:
    return Resize(size, MEAN, STD, **options)


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize(("width", "height"), [(256, 256), (300, 120), (57, 400), (56, 56), (20, 31)])
def test_resizing_gives_the_exact_value_within_one_level_and_so_does_pillow(width, height, filter):
    pixels = noise(width, height)
    view = maker(filter=filter)(pixels)[0].permute(1, 2, 0).numpy().astype(int)
    planes = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).double()
    exact = torch.nn.functional.interpolate(planes, (56, 56), mode=filter, antialias=True)[0].permute(1, 2, 0).numpy()
    assert np.abs(view - exact.clip(0, 255)).max() <= 1.1
    off = np.abs(view - np.asarray(Image.fromarray(pixels).resize((56, 56), FILTERS[filter])))
    assert off.max() <= 2  # each within one level of the exact value, rarely on opposite sides of it
    assert (off > 1).mean() < 1e-3


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_grey_becomes_three_equal_channels(fit):
    grey = noise(90, 70)[..., 0]
    (view,) = maker(fit=fit)(grey)
    (colour,) = maker(fit=fit)(np.stack([grey] * 3, -1))
    assert view.shape == (3, 56, 56)
    assert (view.int() - colour.int()).abs().max() <= 1


def test_crop_takes_the_middle_square():
    wide, tall = noise(100, 56), noise(56, 101)
    assert np.array_equal(maker(fit="crop")(wide)[0].permute(1, 2, 0), wide[:, 22:78])
    assert np.array_equal(maker(fit="crop")(tall)[0].permute(1, 2, 0), tall[22:78])


def test_a_pillow_picture_and_its_pixels_give_the_same_views():
    pixels = noise(90, 70)
    for make in (maker(), maker(fit="crop"), BlockMean(14)):
        assert torch.equal(make(pixels)[0], make(Image.fromarray(pixels))[0])


def test_transparent_pixels_are_white_in_use_as_in_training():
    clear = Image.new("RGBA", (30, 30), (0, 0, 0, 0))
    assert int(maker()(clear)[0].min()) == 255


def test_finishing_normalises_each_channel_and_leaves_the_views():
    views = torch.stack([maker()(noise(80, 60, seed))[0] for seed in range(3)])
    before = views.clone()
    expected = (views.double() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    torch.testing.assert_close(maker().finish(views), expected.float(), rtol=0, atol=1e-5)
    assert torch.equal(views, before)
    blank = torch.zeros(1, 3, 56, 56)
    assert maker().finish(blank).dtype == torch.float32
    assert not blank.any()


def test_nothing_is_augmented_unless_it_is_asked_for():
    pixels = noise(90, 70)
    assert not maker().random
    assert not BlockMean(14).random
    assert all(torch.equal(maker()(pixels)[0], maker()(pixels, seed)[0]) for seed in range(4))
    changing = maker(crop_least=0.3, flip=0.5)
    assert changing.random
    assert torch.equal(changing(pixels)[0], maker()(pixels)[0])


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_an_augmented_view_is_a_function_of_picture_and_seed(fit):
    pixels = noise(90, 70)
    first = [maker(fit=fit, crop_least=0.3, flip=0.5)(pixels, seed)[0] for seed in range(8)]
    torch.rand(3), np.random.default_rng()
    again = [maker(fit=fit, crop_least=0.3, flip=0.5)(pixels, seed)[0] for seed in reversed(range(8))]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))
    assert len({view.numpy().tobytes() for view in first}) == 8


def test_flipping_mirrors_left_and_right_as_often_as_asked():
    pixels = noise(56, 56)
    views = [maker(flip=0.3)(pixels, seed)[0] for seed in range(400)]
    plain = maker()(pixels)[0]
    mirrored = [torch.equal(view, plain.flip(-1)) for view in views]
    assert all(flipped or torch.equal(view, plain) for flipped, view in zip(mirrored, views, strict=True))
    assert 80 < sum(mirrored) < 160


def test_a_crop_shows_at_least_its_share_and_reaches_the_edges():
    height, width = 80, 120
    place = np.zeros((height, width, 3), np.uint8)
    place[..., 0], place[..., 1] = np.arange(width), np.arange(height)[:, None]  # red tells the column, green the row
    views = np.stack([maker(crop_least=0.25)(place, seed)[0].numpy() for seed in range(300)]).astype(int)
    columns = views[:, 0].max((1, 2)) - views[:, 0].min((1, 2)) + 1
    rows = views[:, 1].max((1, 2)) - views[:, 1].min((1, 2)) + 1
    share = columns * rows / (height * width)
    assert 0.2 < share.min() < 0.35
    assert share.max() > 0.9
    assert np.abs(columns / rows - width / height).max() < 0.15  # squashed as the whole picture would be
    assert views[:, 0].min() <= 1
    assert views[:, 0].max() >= width - 2


def test_the_smallest_crop_of_a_reduced_picture_still_covers_the_view():
    target = BytesIO()
    Image.fromarray(noise(512, 512)).save(target, "JPEG")
    plain, cropped = maker(112), maker(112, crop_least=0.25)
    assert plain.least == (112, 112)
    assert cropped.least == (224, 224)
    assert decode(target.getvalue(), "a", least=plain.least).shape == (128, 128, 3)
    assert decode(target.getvalue(), "a", least=cropped.least).shape == (256, 256, 3)
    assert BlockMean(14).least is None


def test_block_means_of_a_jpeg_are_those_of_pillow():
    target = BytesIO()
    Image.fromarray(noise(56, 56)).save(target, "JPEG")
    picture = Image.open(BytesIO(target.getvalue()))
    expected = picture.convert("L").convert("F").resize((14, 14), Image.Resampling.BOX)
    (view,) = BlockMean(14)(decode(target.getvalue(), "a", least=BlockMean.least))
    assert np.array_equal(view[0].numpy(), np.asarray(expected) / np.float32(255))
