"""Settings of a set as its file in conf/source gives them, for a folder of invented files."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from PIL import Image

from data_prep import convert
from data_prep.settings import check
from data_prep.verify import verify_split


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """prepare("mnist", folder, "limit=3", ...) -> the manifests; the output lies in tmp_path/out."""

    def run(source: str, folder: Path | None = None, *overrides: str) -> list[dict[str, Any]]:
        given = [
            f"source={source}",
            f"out={tmp_path / 'out'}",
            f"paths.data={tmp_path / 'data'}",
            "workers=0",
            *overrides,
            *([f"from={folder}"] if folder else []),
        ]
        with initialize_config_module("conf", version_base=None):
            config = OmegaConf.to_container(compose("prepare", given), resolve=True)
        return convert.prepare(*check(config), given)  # type: ignore[arg-type]

    return run


def picture(seed: int, width: int = 40, height: int = 32, mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR).convert(mode)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    target = BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def verify_shards(directory: Path) -> list[str]:
    """Everything in a prepared split that is not as it should be, one line each; empty if all is well."""
    return list(verify_split(directory, workers=0).faults.lines())
