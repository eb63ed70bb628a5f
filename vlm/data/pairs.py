"""Two answers to one question: which pairs are refused, what of them is scored, and where they differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from vlm.contracts.batch import IGNORE
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Sample
from vlm.data.template import Row

# A full stop is a word of its own: a sentence that goes on has not changed its last word.
WORD = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")
BROKEN = "\ufffd"  # what a decoder shows for a part of a character
Span = list[int]


def refuse_no_pair(sample: Sample, sees: bool) -> None:
    """sees: whether the model has an encoder, so that a pair without picture was not judged for what it shows.

    Raises: InputError("pair_missing: ..."), ("media_missing: ...") or ("pair_equal: ...").
    """
    if sample.rejected is None or not sample.turns or sample.turns[-1].role != "assistant":
        raise InputError("pair_missing: the row has no two answers; preferences are learned from sets of pairs alone")
    if sees and not sample.media:
        raise InputError(
            "media_missing: the pair has no picture, but this model has an encoder; leave such pairs out of the set, "
            "or train with encoder=none"
        )
    chosen = "".join(part for part in sample.turns[-1].parts if isinstance(part, str))
    if chosen.split() == sample.rejected.split():
        raise InputError(f"pair_equal: both answers are {chosen[:60]!r}")


def last_answer(row: Row) -> Row:
    """The row with a loss on its last answer alone: both rows of a pair have the earlier ones.

    Something is always asked between two answers, so the last run of labels is the last answer.
    """
    end = max((place for place, label in enumerate(row.labels) if label != IGNORE), default=-1) + 1
    begin = end
    while begin > 0 and row.labels[begin - 1] != IGNORE:
        begin -= 1
    return Row(row.ids, [IGNORE] * begin + row.labels[begin:], row.cut)


def changed_words(chosen: str, rejected: str) -> tuple[list[Span], list[Span]]:
    """[start, end) characters of what one answer has and the other has not, by words, for each of the two.

    White space between two changed words belongs to them; where words are only missing, that side has no span.
    """
    sides = [list(WORD.finditer(text)) for text in (chosen, rejected)]
    words = [[match.group() for match in side] for side in sides]
    spans: tuple[list[Span], list[Span]] = ([], [])
    for tag, *bounds in SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        for side, found, (first, end) in zip(sides, spans, (bounds[:2], bounds[2:]), strict=True):
            if tag != "equal" and first < end:
                found.append([side[first].start(), side[end - 1].end()])
    return spans


def changed_tokens(rows: Sequence[Row], decode: Callable[[Sequence[int]], str]) -> list[list[bool]]:
    """For the two rows of a pair which tokens touch a word of the answer that the other answer does not have.

    By words, because tokens that two different words have in common (a prefix, an ending) changed with them.
    Raises: InputError("pair_equal: ...") for answers of the same tokens.
    """
    chosen, rejected = rows
    if chosen.ids == rejected.ids:
        cut = " as far as they fit; raise llm.template.max_tokens" if chosen.cut or rejected.cut else ""
        raise InputError(f"pair_equal: both answers are the same {len(chosen.ids)} tokens{cut}")
    places = [[place for place, label in enumerate(row.labels) if label != IGNORE] for row in rows]
    answers = [[row.ids[place] for place in own] for row, own in zip(rows, places, strict=True)]
    spans = changed_words(*(decode(ids) for ids in answers))
    marks = [[False] * len(row.ids) for row in rows]
    for mark, own, ids, found in zip(marks, places, answers, spans, strict=True):
        for place, (begin, end) in zip(own, token_spans(ids, decode), strict=True):
            mark[place] = any(begin < last and first < end for first, last in found)
    return marks


def token_spans(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[tuple[int, int]]:
    """[start, end) characters of decode(ids) that each token stands for; tokens of one character share its place."""
    spans: list[tuple[int, int]] = []
    before, read, at = 0, 0, 0  # a token is decoded behind the one before it: the first one alone may lose a space
    for number in range(len(ids)):
        text = decode(ids[before : number + 1])
        if text.endswith(BROKEN) and number + 1 < len(ids):
            continue
        length = len(text) - len(decode(ids[before:read]))
        spans += [(at, at + length)] * (number + 1 - read)
        before, read, at = read, number + 1, at + length
    return spans
