"""`vlm.image_batches`: every picture of a prepared split, in order, as the encoder takes it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vlm
from data_prep.writing.shard import ShardWriter, write_sealed
from vlm.contracts.errors import InputError
from vlm.data.canonical import FORMAT, from_json
from vlm.data.images import IMAGENET_MEAN, IMAGENET_STD


def jpeg(number: int, width: int = 80, height: int = 60) -> bytes:
    """A picture whose red tells its number."""
    values = np.full((height, width, 3), 10 * number, np.uint8)
    values[..., 1] = np.arange(width)
    target = BytesIO()
    Image.fromarray(values).save(target, "JPEG", quality=95)
    return target.getvalue()


def prepared(home: Path, rows: list[list[bytes]]) -> Path:
    """A split of caption rows with these pictures."""
    writer = ShardWriter(home, shard_bytes=20_000)
    for number, payloads in enumerate(rows):
        media = [
            {
                "type": "image",
                "member": f"{i:02d}.jpg",
                "w": 80,
                "h": 60,
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "phash": "0" * 16,
                "orig": f"{number}-{i}.jpg",
            }
            for i, data in enumerate(payloads)
        ]
        record = {
            "v": 1,
            "kind": "caption",
            "key": f"demo-{number:010d}",
            "set": "demo",
            "split": "train",
            "src": {"file": "captions.tsv", "row": number, "id": str(number)},
            "license": "MIT",
            "media": media,
            "caption": "a colour",
        }
        writer.add(from_json(json.dumps(record).encode()), payloads)
    manifest = {"format": FORMAT, "set": "demo", "split": "train", "index": writer.finish(), "shards": writer.shards}
    manifest |= {"counts": {"samples_out": len(rows)}, "license": {"counts": {"MIT": len(rows)}}}
    write_sealed(home / "manifest.json", json.dumps(manifest).encode())
    return home


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Eleven pictures in nine rows: one row has none, one has four."""
    numbers = iter(range(11))
    return prepared(tmp_path, [[jpeg(next(numbers)) for _ in range(count)] for count in (1, 1, 0, 4, 1, 1, 1, 1, 1)])


def red(batches: list[torch.Tensor]) -> list[int]:
    values = torch.cat(batches)[:, 0].mean((1, 2)) * IMAGENET_STD[0] + IMAGENET_MEAN[0]
    return (values * 25.5).round().int().tolist()


def test_every_picture_comes_once_in_order_and_the_last_batch_is_shorter(split: Path) -> None:
    batches = list(vlm.image_batches(split, 32, 4))
    assert [batch.shape for batch in batches] == [(4, 3, 32, 32), (4, 3, 32, 32), (3, 3, 32, 32)]
    assert all(batch.dtype == torch.float32 for batch in batches)
    assert red(batches) == list(range(11))
    assert red(list(vlm.image_batches(split, 32, 100))) == list(range(11))


def test_batches_do_not_depend_on_the_workers(split: Path) -> None:
    alone = list(vlm.image_batches(split, 32, 3))
    helped = list(vlm.image_batches(split, 32, 3, workers=2))
    assert len(alone) == len(helped) == 4
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


def test_center_shows_the_middle_square_and_squash_the_whole_width(split: Path) -> None:
    options = {"mean": [0, 0, 0], "std": [1, 1, 1], "filter": "bilinear"}
    (center,) = vlm.image_batches(split, 60, 11, crop="center", **options)  # type: ignore[arg-type]
    (squash,) = vlm.image_batches(split, 60, 11, crop="squash", **options)  # type: ignore[arg-type]
    green = [(views[0, 1].mean(0) * 255)[[0, -1]].round().int().tolist() for views in (center, squash)]
    assert np.allclose(green, [[10, 69], [0, 79]], atol=3)


def test_mean_and_std_are_applied_to_values_in_0_to_1(split: Path) -> None:
    (plain,) = vlm.image_batches(split, 16, 11, mean=(0, 0, 0), std=(1, 1, 1))
    (scaled,) = vlm.image_batches(split, 16, 11, mean=(0.1, 0.2, 0.3), std=(0.5, 1, 2))
    expected = (plain - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 1, 2]).view(3, 1, 1)
    torch.testing.assert_close(scaled, expected)
    assert 0 <= plain.min() <= plain.max() <= 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_is_named_when_its_batch_is_reached(tmp_path: Path, workers: int) -> None:
    good, bad = jpeg(1), jpeg(2)[:-300]
    home = prepared(tmp_path, [[good], [good], [good], [bad], [good]])
    batches = vlm.image_batches(home, 32, 2, workers=workers)
    assert len(next(batches)) == 2
    with pytest.raises(InputError, match=r"^media_truncated: demo/train row 3: demo-0000000003: .*prepare"):
        next(batches)


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    home = prepared(tmp_path, [[jpeg(number)] for number in range(5)])
    shard = home / "shard-000000.tar"
    content = bytearray(shard.read_bytes())
    content[content.index(b"\xff\xda") + 40] ^= 1  # within the first picture
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"demo/train row 0 .*changed after they were written"):
        next(vlm.image_batches(home, 32, 2))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 0}, "size"),
        ({"batch": 0}, "batch"),
        ({"workers": -1}, "workers"),
        ({"crop": "middle"}, "crop"),
        ({"filter": "nearest"}, "filter"),
        ({"mean": [0.5]}, "mean"),
        ({"std": [1, 0, 1]}, "std"),
    ],
)
def test_arguments_out_of_range_are_refused_at_the_call(split: Path, wrong: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        vlm.image_batches(split, **{"size": 32, "batch": 4} | wrong)


def test_a_folder_that_is_no_split_is_refused_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(tmp_path)):
        vlm.image_batches(tmp_path, 32, 4)


def test_what_a_worker_imports_holds_no_trainer_and_no_model_library() -> None:
    heavy = "{'lightning', 'transformers', 'hydra'}"
    code = f"import sys, vlm.data.images; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
