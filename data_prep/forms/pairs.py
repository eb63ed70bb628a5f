"""Preference pairs from facts, in the file form of RLHF-V: what is wrong in the rejected answer is known exactly."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pyarrow import parquet

from data_prep.forms.facts import Fact, draw, known, number
from data_prep.forms.words import ASKED, invented, one, with_second
from data_prep.reading.shapes import NAMES, SHAPES, Drawing

Kind = Literal["wrong_color", "wrong_shape", "wrong_both", "invented", "open", "yesno"]
SIZES: dict[str, int | None] = {"tiny": 256, "small": 5733, "full": None}  # small is the size of RLHF-V
SCHEMA = pa.schema(
    [
        ("ds_name", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("text", pa.string()),
        ("origin_dataset", pa.string()),
        ("origin_split", pa.string()),
        ("idx", pa.int64()),
        ("image_path", pa.string()),
    ]
)
Said = tuple[str, str, str, str]  # key, question, chosen, rejected


def pairs(drawings: Sequence[Drawing], kinds: Mapping[Kind, int], size: int | None) -> Iterator[dict[str, Any]]:
    """Rows of SCHEMA. kinds: kind -> its share of the rows while it lasts; 0 = none.   size: rows, None = all.

    origin_split names the kind of the pair as its type.
    """
    pictures = {drawing.key: drawing for drawing in drawings}
    ranked = []
    for kind, share in kinds.items():
        shuffled = sorted((number("order", kind, entry[0]), entry) for entry in said_of(kind, drawings) if share)
        ranked += [((rank + 0.5) / share, kind, entry) for rank, (_, entry) in enumerate(shuffled)]
    for row, (_, kind, (key, question, chosen, rejected)) in enumerate(islice(sorted(ranked), size)):
        drawing = pictures[key.split("/")[0]]
        path = f"{drawing.key}.png"
        yield {
            "ds_name": "easy-vqa-pairs",
            "image": {"bytes": drawing.data, "path": path},
            "text": json.dumps({"question": question, "chosen": chosen, "rejected": rejected}),
            "origin_dataset": "easy-vqa",
            "origin_split": json.dumps({"model": "facts", "type": kind}),
            "idx": row,
            "image_path": path,
        }


def said_of(kind: Kind, drawings: Sequence[Drawing]) -> list[Said]:
    """All pairs of a kind; the key begins with that of the drawing."""
    if kind in DESCRIBED:
        return [(f"{fact.key}/{kind}", ASKED, described(fact), DESCRIBED[kind](fact)) for fact in known(drawings)]
    return [
        (f"{drawing.key}/{asked.row}", asked.text, asked.answer, another(asked.answer, drawing.key, asked.row))
        for drawing in drawings
        for asked in drawing.questions
        if asked.kind == kind and drawing.data is not None
    ]


def described(fact: Fact) -> str:
    return one(fact.colour, fact.shape)


def another(answer: str, *key: object) -> str:
    """A wrong answer of the same type."""
    options = next(names for names in (("yes", "no"), SHAPES, NAMES) if answer in names)
    return draw([name for name in options if name != answer], *key)


def _wrong_color(fact: Fact) -> str:
    return one(draw(fact.other_colours, fact.key, "color"), fact.shape)


def _wrong_shape(fact: Fact) -> str:
    return one(fact.colour, draw(fact.other_shapes, fact.key, "shape"))


def _wrong_both(fact: Fact) -> str:
    return one(draw(fact.other_colours, fact.key, "both", "color"), draw(fact.other_shapes, fact.key, "both", "shape"))


def _invented(fact: Fact) -> str:
    return with_second(fact.colour, fact.shape, invented(fact.colour, fact.shape, fact.key, "invented"))


DESCRIBED: dict[str, Callable[[Fact], str]] = {
    "wrong_color": _wrong_color, "wrong_shape": _wrong_shape, "wrong_both": _wrong_both, "invented": _invented,
}  # fmt: skip


def write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """One parquet file, in its place only when it is whole; two processes may write the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with parquet.ParquetWriter(part, SCHEMA) as writer:
            while batch := list(islice(rows, 1000)):
                writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
