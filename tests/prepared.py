"""Small prepared sets, made by the real converters from files of exactly the published form."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def digits(root: Path, train: int = 240, test: int = 40) -> Path:
    """A set `mnist` of invented digits under root/data: ten fixed blobs with noise. Returns root/data."""
    source = root / "published"
    source.mkdir(parents=True)
    generator = np.random.default_rng(0)
    coarse = Image.fromarray((generator.random((40, 4)) * 255).astype(np.uint8)).resize(
        (28, 280), Image.Resampling.BICUBIC
    )
    shapes = np.array(coarse).reshape(10, 28, 28) * 0.8
    for split, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) * 7 % 10).astype(np.uint8)
        pictures = np.clip(shapes[labels] + generator.normal(0, 12, (count, 28, 28)), 0, 255).astype(np.uint8)
        (source / f"{split}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, count, 28, 28) + pictures.tobytes()
        )
        (source / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())
    return prepare("mnist", source, root / "data", "source.reader.checksums=null")


def captions(root: Path, count: int = 80) -> Path:
    """A set `caption_table` of coloured squares under root/data: "a red square at the left". Returns root/data."""
    source = root / "pictures"
    source.mkdir(parents=True)
    colours = {"red": (220, 30, 30), "green": (20, 160, 60), "blue": (40, 60, 220), "black": (10, 10, 10)}
    lines = []
    for number in range(count):
        name = list(colours)[number % 4]
        left = number // 4 % 2 == 0
        picture = Image.new("RGB", (64, 48), (250, 250, 250))
        picture.paste(
            colours[name], (4 + number % 9 if left else 34 + number % 9, 8, 24 + number % 9 if left else 54, 40)
        )
        picture.putpixel((number % 64, 47), (number, 0, 0))
        picture.save(source / f"{number}.png")
        lines.append(f"{number}.png\ta {name} square at the {'left' if left else 'right of the picture'}\n")
    (source / "captions.tsv").write_text("".join(lines))
    return prepare("caption_table", source, root / "data")


def chats(root: Path, count: int = 120, pictures: bool = True) -> Path:
    """A set `chat_jsonl` under root/data: questions about no, one or several coloured pictures, of ragged lengths."""
    source = root / "talks"
    source.mkdir(parents=True)
    colours = {"red": (220, 30, 30), "green": (20, 160, 60), "blue": (40, 60, 220)}
    rows = []
    for number in range(count):
        names = [list(colours)[(number + k) % 3] for k in range(number % 4 if pictures else 0)]  # 0, 1, 2 or 3 pictures
        for place, name in enumerate(names):
            picture = Image.new("RGB", (32, 32), colours[name])
            picture.putpixel((number % 32, number // 32), (place, number % 256, 0))
            picture.save(source / f"{number}-{place}.png")
        answer = " and ".join(names) or "nothing to see here" + " at all" * (number % 9 * (1 if pictures else 4))
        rows.append(
            {
                "messages": [
                    {"role": "user", "content": "<image>" * len(names) + f"what is number {number}"},
                    {"role": "assistant", "content": answer},
                ],
                "images": [f"{number}-{place}.png" for place in range(len(names))],
            }
        )
    (source / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return prepare("chat_jsonl", source, root / "data")


def prepare(name: str, source: Path, out: Path, *words: str) -> Path:
    command = [sys.executable, "-m", "data_prep.prepare", f"source={name}", f"from={source}", f"out={out}", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return out
