"""Pictures of COCO, which are known by their number, whatever folder or year they lie in."""

from __future__ import annotations

import re

# One space of numbers for all years and splits: COCO_val2014_000000310196.jpg and train2017/000000310196.jpg are one
# picture. All of them are below 600,000, so a time of twelve digits is no COCO number.
NAME = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(0{6}\d{6})(?:\.[A-Za-z]{3,4})?")


def coco_number(name: str) -> int | None:
    """Of a picture's name or path; None if it is not one of COCO's."""
    found = NAME.fullmatch(re.split(r"[/\\:]", name)[-1])
    return None if found is None else int(found[1])
