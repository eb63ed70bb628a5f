"""Rows that begin alike become one example: a shared prefix, and a branch for what differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlm.contracts.batch import IGNORE, VISUAL
from vlm.contracts.sample import Sample, Turn
from vlm.data.template import Row


@dataclass(frozen=True)
class Layout:
    """One text row of several segments, each list of length L but parent, which is indexed by segment.

    taken: for each segment the row and the part of it, (row, begin, end), that it holds.
    """

    ids: list[int]
    labels: list[int]
    positions: list[int]
    segment: list[int]
    parent: list[int]
    taken: list[tuple[int, int, int]]


def conversations(sample: Sample, pair: bool = False) -> list[tuple[Turn, ...]]:
    """The texts that a sample stands for, each a row of its own if nothing were shared.

    One conversation; of independent questions (meta "independent") one for each question and its answer, all with
    the pictures of the first; of a preference pair (pair=True) the chosen and the rejected one.
    """
    if pair:
        assert sample.rejected is not None  # rows without it are refused first
        return [sample.turns, (*sample.turns[:-1], Turn("assistant", (sample.rejected,)))]
    if not sample.meta.get("independent"):
        return [sample.turns]
    start = [turn for turn in sample.turns if turn.role == "system"]
    rest = [turn for turn in sample.turns if turn.role != "system"]
    pictures = tuple(part for part in rest[0].parts if isinstance(part, int))
    first = Turn("user", tuple(part for part in rest[0].parts if isinstance(part, str)))
    questions = [first, *rest[2::2]]
    return [
        (*start, Turn("user", (*pictures, *question.parts)), answer)
        for question, answer in zip(questions, rest[1::2], strict=True)
    ]


def join(rows: Sequence[Row]) -> Layout:
    """Segment 0 is what all rows begin with and none is asked for; each row's rest is a branch of it.

    A branch begins with a copy of the prefix's last token, at that token's position, so that in every segment a
    token predicts the one behind it. The prefix never ends inside or right behind a picture, whose copy would need
    its pixels; rows that share no more than that stand side by side.
    """
    if len(rows) == 1:
        return side_by_side(rows)
    common = 0
    for tokens in zip(*(zip(row.ids, row.labels, strict=True) for row in rows), strict=False):
        if len(set(tokens)) > 1 or tokens[0][1] != IGNORE:
            break
        common += 1
    common = min(common, *(len(row.ids) - 1 for row in rows))
    while common > 0 and rows[0].ids[common - 1] == VISUAL:
        common -= 1
    prefix = common - 1
    if prefix < 1:
        return side_by_side(rows)
    layout = Layout([], [], [], [], [], [])
    _append(layout, rows[0], 0, 0, prefix, parent=-1)
    for number, row in enumerate(rows):
        _append(layout, row, number, prefix, len(row.ids), parent=0)
    return layout


def side_by_side(rows: Sequence[Row]) -> Layout:
    """Every row a segment of its own that sees nothing of the others."""
    layout = Layout([], [], [], [], [], [])
    for number, row in enumerate(rows):
        _append(layout, row, number, 0, len(row.ids), parent=-1)
    return layout


def _append(layout: Layout, row: Row, number: int, begin: int, end: int, parent: int) -> None:
    layout.ids.extend(row.ids[begin:end])
    layout.labels.extend([IGNORE, *row.labels[begin + 1 : end]])
    layout.positions.extend(range(begin, end))
    layout.segment.extend([len(layout.parent)] * (end - begin))
    layout.parent.append(parent)
    layout.taken.append((number, begin, end))
