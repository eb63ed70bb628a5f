"""Published lists of pictures that are known by their number."""

from __future__ import annotations

import re
from pathlib import Path

from vlm.contracts.errors import InputError

LISTS = (".jsonl", ".json", ".txt", ".csv", ".tsv")
IN_TEXT = re.compile(
    rb'(?<![0-9A-Za-z])(?:COCO_[a-z]+\d{4}_)?(0{6}\d{6})(?![0-9])|"image_id"\s*:\s*"?(\d{1,6})(?![0-9])'
)
BLOCK, LONGEST = 1 << 20, 64  # bytes that are read at once, and that a name may be cut by
COLUMN = b"image_id"


def listed_numbers(path: Path) -> set[int]:
    """Every COCO number in a published list: questions, annotations or names, as JSON, JSON Lines, text or a table.

    Raises: InputError if there is none.
    """
    numbers: set[int] = set()
    with path.open("rb") as stream:
        tail = b""
        while block := stream.read(BLOCK):
            text = tail + block
            whole = len(text) - (LONGEST if len(block) == BLOCK else 0)  # what ends later is read with the next block
            matches = [found for found in IN_TEXT.finditer(text) if found.start() < whole]
            numbers.update(int(found[1] or found[2]) for found in matches)
            tail = text[max(whole, matches[-1].end() if matches else 0) :]
    if path.suffix in (".csv", ".tsv"):
        numbers |= _column(path, b"," if path.suffix == ".csv" else b"\t")
    if not numbers:
        raise InputError(
            f"{path} names no COCO picture: neither COCO_val2014_000000310196.jpg nor 000000310196.jpg nor "
            '"image_id": 310196 stands in it; prepare the evaluation set and name it as SET/SPLIT'
        )
    return numbers


def _column(path: Path, comma: bytes) -> set[int]:
    """The plain numbers of a table's column image_id, if it has one."""
    with path.open("rb") as stream:
        names = [name.strip(b' "\r\n\xef\xbb\xbf') for name in stream.readline().split(comma)]
        if COLUMN not in names:
            return set()
        place = names.index(COLUMN)
        fields = (line.split(comma)[place].strip(b' "\r\n') for line in stream if line.count(comma) >= place)
        return {int(value) for value in fields if value.isdigit()}
