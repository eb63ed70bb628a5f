"""View makers: a decoded picture becomes the encoder's input.

A maker has `spec` (what it gives, and how many frames of a clip it takes), `least` (the size that it needs a picture
decoded at, None for all pixels) and `random` (whether its views depend on the seed). It is called as
`maker(picture, seed)`, for a clip once a frame with the same seed, with a Pillow picture or what
`vlm.data.pictures.decode` gives, and `finish`es a whole batch on the device, so that workers and caches hold small
integers instead of floats. Without a seed nothing is augmented; with one, the views are a function of picture and seed.
"""

from __future__ import annotations

import math
from random import Random
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Len
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from vlm.contracts.ranges import PositiveFloat, Probability, ViewSide
from vlm.contracts.vision import ViewSpec
from vlm.data.clips import MOST, FrameCount
from vlm.data.pictures import to_array


class Resize:
    """RGB at size x size, resampled with antialiasing; normalised by mean and std.

    fit: "squash" takes the whole picture, aspect not kept; "crop" its largest square, from the middle.
    crop_least: augmentation; the part that is shown has a share of the area of `fit`'s part drawn from crop_least..1
    and lies anywhere in the picture. 1 for none.   flip: augmentation; probability of mirroring left and right.
    frames: at most so many of a clip, evenly spread over it; 0 = clips are refused.   still: a picture stands in the
    text so often, as a clip of equal frames; it is encoded once.
    """

    def __init__(
        self,
        size: ViewSide,
        mean: Annotated[list[float], Len(3, 3)],
        std: Annotated[list[PositiveFloat], Len(3, 3)],
        fit: Literal["squash", "crop"] = "squash",
        filter: Literal["bilinear", "bicubic"] = "bilinear",
        crop_least: Annotated[float, Gt(0), Le(1)] = 1.0,
        flip: Probability = 0.0,
        frames: Annotated[int, Ge(0), Le(MOST)] = 0,
        still: FrameCount = 1,
    ) -> None:
        self.spec = self.describe(size, mean, std, fit, filter, crop_least, flip, frames, still)
        self.mean, self.std, self.fit, self.filter = mean, std, fit, filter
        self.crop_least, self.flip = crop_least, flip

    @staticmethod
    def describe(
        size: int,
        mean: list[float],
        std: list[float],
        fit: str,
        filter: str,
        crop_least: float,
        flip: float,
        frames: int,
        still: int,
    ) -> ViewSpec:
        return ViewSpec(channels=3, height=size, width=size, still=still, frames=frames)

    @property
    def least(self) -> tuple[int, int]:
        # The smallest crop still covers the view. It counts without a seed too: all see pixels of one decoding.
        side = math.ceil(self.spec.height / math.sqrt(self.crop_least))
        return side, side

    @property
    def random(self) -> bool:
        return self.crop_least < 1 or self.flip > 0

    def __call__(self, picture: Image.Image | np.ndarray, seed: int | None = None) -> list[Tensor]:
        """-> one view, uint8 [3, size, size]."""
        pixels = to_array(picture)
        chance = Random(seed) if seed is not None and self.random else None
        top, left, height, width = self._part(pixels.shape[0], pixels.shape[1], chance)
        part = torch.from_numpy(pixels)[top : top + height, left : left + width]
        planes = part.unsqueeze(0) if part.ndim == 2 else part.permute(2, 0, 1)
        size = (self.spec.height, self.spec.width)
        view = interpolate(planes.unsqueeze(0), size, mode=self.filter, antialias=True)[0]
        if chance is not None and chance.random() < self.flip:
            view = view.flip(-1)
        return [view.expand(3, *size).contiguous()]

    def finish(self, views: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] -> float32, normalised per channel."""
        scale = torch.tensor(self.std, device=views.device).view(1, 3, 1, 1) * 255
        shift = torch.tensor(self.mean, device=views.device).view(1, 3, 1, 1) * 255
        finished = torch.empty(views.shape, dtype=torch.float32, device=views.device)
        # One view at a time stays in the processor's cache; a whole batch would go through memory at every step.
        together = max(1, len(views)) if views.is_cuda else 1
        for place, part in zip(finished.split(together), views.split(together), strict=True):
            place.copy_(part).sub_(shift).div_(scale)
        return finished

    def _part(self, height: int, width: int, chance: Random | None) -> tuple[int, int, int, int]:
        """top, left, height and width of what is shown."""
        rows, columns = (height, width) if self.fit == "squash" else (min(height, width),) * 2
        if chance is None or self.crop_least == 1:
            return (height - rows) // 2, (width - columns) // 2, rows, columns
        side = math.sqrt(chance.uniform(self.crop_least, 1))
        rows, columns = max(1, round(rows * side)), max(1, round(columns * side))
        return chance.randint(0, height - rows), chance.randint(0, width - columns), rows, columns


class BlockMean:
    """Grey in 0..1, each pixel the mean of its block (28 x 28 -> 14 x 14 by 2 x 2 blocks)."""

    least = None  # a reduced decode averages other blocks
    random = False

    def __init__(self, size: ViewSide) -> None:
        self.spec = self.describe(size)

    @staticmethod
    def describe(size: int) -> ViewSpec:
        return ViewSpec(channels=1, height=size, width=size)

    def __call__(self, picture: Image.Image | np.ndarray, seed: int | None = None) -> list[Tensor]:
        """-> one view, float32 [1, size, size]: a mean of bytes is no byte, so it is kept as it is."""
        grey = Image.fromarray(to_array(picture)).convert("L").convert("F")
        small = grey.resize((self.spec.width, self.spec.height), Image.Resampling.BOX)
        return [torch.from_numpy(np.array(small, dtype=np.float32) / 255).unsqueeze(0)]

    def finish(self, views: Tensor) -> Tensor:
        return views
