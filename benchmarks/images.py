"""Pictures of a prepared set to normalised batches, beside webdataset with Pillow: images per CPU second.

python -m benchmarks.images

One thread a side, the same shards, the same batches of 224 x 224, in turn.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from webdataset.compat import WebDataset

import vlm
from benchmarks.paired import paired

PICTURES, SIDE, QUALITY, SIZE, BATCH, ROUNDS = 240, 512, 88, 224, 32, 7
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        split = prepare(Path(folder))
        files = [str(path) for path in sorted(split.glob("shard-*.tar"))]
        count = sum(len(batch) for batch in vlm.image_batches(split, SIZE, BATCH))
        print(f"{count} JPEG of {SIDE}x{SIDE} to {SIZE}x{SIZE}, batches of {BATCH}; images per CPU second, one thread")
        print(
            f"{'filter, both sides':20}{'ours':>14}{'webdataset':>15}{'ratio':>8}   (median, smallest and largest ratio)"
        )
        for name in ("bicubic", "bilinear"):  # Pillow's default, then its cheapest that antialiases
            found = paired(partial(_ours, split, name), partial(_usual, files, name), count, ROUNDS)
            print(f"{name:20}{found}")


def _ours(split: Path, name: Literal["bicubic", "bilinear"]) -> None:
    _consume(vlm.image_batches(split, SIZE, BATCH, crop="squash", mean=MEAN, std=STD, filter=name))


def _usual(files: list[str], name: str) -> None:
    _consume(usual_batches(files, Image.Resampling[name.upper()]))


def usual_batches(files: list[str], resample: Image.Resampling) -> Iterator[Tensor]:
    """What a user would write with webdataset and Pillow."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)

    def view(picture: Image.Image) -> Tensor:
        resized = picture.resize((SIZE, SIZE), resample)
        return (torch.from_numpy(np.array(resized)).permute(2, 0, 1).float().div(255) - mean) / std

    pictures = WebDataset(files, shardshuffle=False, select_files=lambda name: name.endswith(".jpg"))
    views = pictures.decode("pil").to_tuple("jpg").map_tuple(view)
    for columns in views.batched(BATCH, collation_fn=None):
        yield torch.stack([row[0] for row in columns])


def prepare(folder: Path) -> Path:
    """A prepared split of pictures with detail at every size, as photographs have it."""
    source = folder / "published"
    source.mkdir()
    generator = np.random.default_rng(0)
    lines = []
    for number in range(PICTURES):
        picture(generator).save(source / f"{number}.jpg", "JPEG", quality=QUALITY)
        lines.append(f"{number}.jpg\tpicture {number}\n")
    (source / "captions.tsv").write_text("".join(lines))
    command = [sys.executable, "-m", "data_prep.prepare", "source=caption_table", f"from={source}", f"out={folder}"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return folder / "caption_table" / "train"


def picture(generator: np.random.Generator) -> Image.Image:
    """Noise in octaves, the finer the weaker."""
    values = np.full((SIDE, SIDE, 3), 128.0)
    for octave in range(2, SIDE.bit_length()):
        side = 2**octave
        for channel in range(3):
            noise = Image.fromarray(generator.normal(0, 110 / octave**1.5, (side, side)).astype(np.float32))
            values[..., channel] += np.asarray(noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _consume(batches: Iterator[Tensor]) -> None:
    for batch in batches:
        assert batch.shape[1:] == (3, SIZE, SIZE)


if __name__ == "__main__":
    main()
