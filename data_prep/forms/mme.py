"""MME: pairs of one question with yes and one with no about the same picture, in four subtasks."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyarrow import parquet

from data_prep.forms.facts import Fact, draw
from data_prep.forms.material import File, Material
from data_prep.forms.pope import near
from data_prep.reading.shapes import centre

SIDE = 64  # pixels of a picture
MIDDLE = 8  # pixels around the middle in which a shape is neither left nor right
ASK = " Please answer yes or no."
SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("category", pa.string()),
    ]
)
ABOUT = f"""One table; `category` is existence (of a shape), color, position (left or right, from the pixels; shapes
whose middle lies within {MIDDLE // 2} pixels of the picture's are left out) or conjunction (colour and shape
together, one of them wrong in the question with no). A subtask counts 100 * accuracy + 100 * share of pictures with
both questions right, so all four count 800. A constant answer gets 50 a subtask: 200."""


def files(material: Material) -> Iterator[File]:
    rows = [row for category in SUBTASKS for fact in material.facts for row in _pair(category, fact)]
    target = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), target)
    yield File("data/test-00000-of-00001.parquet", target.getvalue().to_pybytes(), len(rows))


def _pair(category: str, fact: Fact) -> Iterator[dict[str, object]]:
    name = f"{fact.key}.png"
    for question, answer in zip(SUBTASKS[category](fact), ("Yes", "No"), strict=False):
        yield {
            "question_id": f"{category}/{name}",
            "image": {"bytes": fact.data, "path": name},
            "question": question + ASK,
            "answer": answer,
            "category": category,
        }


def _existence(fact: Fact) -> list[str]:
    other = draw(fact.other_shapes, "mme", "existence", fact.key)
    return [f"Is there a {shape} in this image?" for shape in (fact.shape, other)]


def _color(fact: Fact) -> list[str]:
    other = draw(fact.other_colours, "mme", "color", fact.key)
    return [f"Is the {fact.shape} {colour}?" for colour in (fact.colour, other)]


def _position(fact: Fact) -> list[str]:
    """None for a shape in the middle."""
    offset = centre(fact.data, fact.colour)[0] - SIDE / 2
    if abs(offset) < MIDDLE / 2:
        return []
    sides = ("left", "right") if offset < 0 else ("right", "left")
    return [f"Is the {fact.shape} on the {side} side of the image?" for side in sides]


def _conjunction(fact: Fact) -> list[str]:
    other = draw(near(fact), "mme", "conjunction", fact.key)
    return [f"Is there a {' '.join(both)} in this image?" for both in ((fact.colour, fact.shape), other)]


SUBTASKS = {"existence": _existence, "color": _color, "position": _position, "conjunction": _conjunction}
