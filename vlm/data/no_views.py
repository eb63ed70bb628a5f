"""The view maker of a model that reads text only."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from vlm.contracts.errors import InputError
from vlm.contracts.vision import ViewSpec


class NoViews:
    """Batches still hold their one blank view, of one pixel; a picture is refused."""

    least: tuple[int, int] | None = (1, 1)
    random = False

    def __init__(self) -> None:
        self.spec = self.describe()

    @staticmethod
    def describe() -> ViewSpec:
        return ViewSpec(channels=1, height=1, width=1)

    def __call__(self, picture: Image.Image | np.ndarray, seed: int | None = None) -> list[Tensor]:
        """Raises: InputError("media_unexpected: ...")."""
        raise InputError(
            "media_unexpected: the sample shows a picture, but this model has no encoder (encoder=none); "
            "choose an encoder and a connector, or data without pictures"
        )

    def finish(self, views: Tensor) -> Tensor:
        return views
