"""View makers: a decoded picture becomes the encoder's input.

A maker has `spec` (what it gives), is called with a picture, and `finish`es a whole batch on the device, so that
workers and caches hold small integers instead of floats.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Len
from PIL import Image
from torch import Tensor

from vlm.contracts.ranges import PositiveFloat, ViewSide
from vlm.contracts.vision import ViewSpec


class Resize:
    """RGB squashed to size x size (aspect not kept), bilinear with antialiasing; normalised by mean and std."""

    def __init__(
        self,
        size: ViewSide,
        mean: Annotated[list[float], Len(3, 3)],
        std: Annotated[list[PositiveFloat], Len(3, 3)],
    ) -> None:
        self.spec = self.describe(size, mean, std)
        self.mean, self.std = mean, std

    @staticmethod
    def describe(size: int, mean: list[float], std: list[float]) -> ViewSpec:
        return ViewSpec(channels=3, height=size, width=size)

    def __call__(self, picture: Image.Image) -> list[Tensor]:
        """-> one view, uint8 [3, size, size]."""
        resized = picture.convert("RGB").resize((self.spec.width, self.spec.height), Image.Resampling.BILINEAR)
        return [torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()]

    def finish(self, views: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] -> float32, normalised per channel."""
        scale = torch.tensor(self.std, device=views.device).view(1, 3, 1, 1) * 255
        shift = torch.tensor(self.mean, device=views.device).view(1, 3, 1, 1) * 255
        return (views - shift) / scale


class BlockMean:
    """Grey in 0..1, each pixel the mean of its block (28 x 28 -> 14 x 14 by 2 x 2 blocks)."""

    def __init__(self, size: ViewSide) -> None:
        self.spec = self.describe(size)

    @staticmethod
    def describe(size: int) -> ViewSpec:
        return ViewSpec(channels=1, height=size, width=size)

    def __call__(self, picture: Image.Image) -> list[Tensor]:
        """-> one view, float32 [1, size, size]: a mean of bytes is no byte, so it is kept as it is."""
        grey = picture.convert("L").convert("F")
        small = grey.resize((self.spec.width, self.spec.height), Image.Resampling.BOX)
        return [torch.from_numpy(np.array(small, dtype=np.float32) / 255).unsqueeze(0)]

    def finish(self, views: Tensor) -> Tensor:
        return views
