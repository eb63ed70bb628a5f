"""The same questions under other conditions: without their pictures, with others' pictures, with moved options."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from io import BytesIO
from random import Random

from PIL import Image

from vlm.contracts.benchmark import Picture, Question
from vlm.data.pictures import open_picture

GREY = (128, 128, 128)
SEEN = "seen"  # the questions as they are


class Blank:
    """With a grey picture of the same size in each picture's place, so that the prompt keeps its length."""

    def __init__(self) -> None:
        self._known: dict[str, Picture] = {}  # by the picture that it stands for, whose size is read once

    def __call__(self, question: Question) -> Question:
        return replace(question, pictures=tuple(self._grey(picture) for picture in question.pictures))

    def _grey(self, picture: Picture) -> Picture:
        if picture.id not in self._known:
            size = open_picture(picture.read(), picture.id).size
            self._known[picture.id] = Picture(f"grey {size[0]}x{size[1]}", partial(_grey_bytes, size))
        return self._known[picture.id]


def shuffled(question: Question, others: Mapping[str, Picture]) -> Question:
    """With other questions' pictures. others: of `other_pictures`."""
    return replace(question, pictures=tuple(others[picture.id] for picture in question.pictures))


def other_pictures(questions: Sequence[Question], seed: int) -> dict[str, Picture]:
    """Picture -> another one, the same for all questions about it, of other bytes as far as there are such."""
    known = {picture.id: picture for question in questions for picture in question.pictures}
    names = sorted(known)
    Random(seed).shuffle(names)
    alike: dict[bytes, list[str]] = defaultdict(list)
    for name in names:
        alike[sha256(known[name].read()).digest()].append(name)
    order = [name for equal in alike.values() for name in equal]
    step = max(map(len, alike.values()), default=0)  # past all that look the same
    return {name: known[order[(place + step) % len(order)]] for place, name in enumerate(order)}


def _grey_bytes(size: tuple[int, int]) -> bytes:
    target = BytesIO()
    Image.new("RGB", size, GREY).save(target, "PNG")
    return target.getvalue()
