"""An invented easy-VQA package: pictures of one shape, and questions of the published form about each."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from PIL import Image, ImageDraw

from data_prep.reading.shapes import COLOURS, NAMES, SHAPES
from tests.data_prep.conftest import encoded

PIXEL = {name: pixel for pixel, name in COLOURS.items()}


def shape_of(number: int) -> tuple[str, str]:
    """(colour, shape) of a picture."""
    return NAMES[number % len(NAMES)], SHAPES[number // 2 % len(SHAPES)]


def drawing(number: int) -> bytes:
    """64x64, the shape left or right of the middle."""
    colour, shape = shape_of(number)
    image = Image.new("RGB", (64, 64), (248, 234, 230 + number % 20))
    pen, box = ImageDraw.Draw(image), (6, 10, 22, 30) if number % 2 else (40, 10, 56, 30)
    fill = PIXEL[colour][:3]
    if shape == "circle":
        pen.ellipse(box, fill)  # type: ignore[arg-type]
    elif shape == "rectangle":
        pen.rectangle(box, fill)  # type: ignore[arg-type]
    else:
        pen.polygon([(box[0], box[3]), (box[2], box[3]), (box[0], box[1])], fill)  # type: ignore[arg-type]
    return encoded(image)


def asked(number: int) -> list[list]:
    """Two open questions and two of yes and no, one of them negated."""
    colour, shape = shape_of(number)
    other = SHAPES[(SHAPES.index(shape) + 1) % 3]
    return [
        ["what shape is present?", shape, number],
        [f"what color is the {shape}?", colour, number],
        [f"is there a {other} in the image?", "no", number],
        [f"does the image not contain a {colour} shape?", "no", number],
    ]


def wheel(folder: Path, train: int = 24, test: int = 12, extra: tuple[list, ...] = ()) -> Path:
    """The package's file. extra: further rows of both splits."""
    path = folder / "easy_vqa-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for split, first, count in (("train", 0, train), ("test", 100, test)):
            rows = [row for number in range(count) for row in asked(first + number)]
            rows = [[text, answer, number - first] for text, answer, number in rows] + list(extra)
            archive.writestr(f"easy_vqa/data/{split}/questions.json", json.dumps(rows))
            for number in range(count):
                archive.writestr(f"easy_vqa/data/{split}/images/{number}.png", drawing(first + number))
    return path


def unpacked(folder: Path, train: int = 24, test: int = 12) -> Path:
    """The package unpacked, for from=DIR."""
    with zipfile.ZipFile(wheel(folder, train, test)) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"
