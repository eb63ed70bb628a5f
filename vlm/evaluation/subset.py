"""Which questions are asked: all, a seeded part, or one process's share."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from vlm.contracts.benchmark import Question
from vlm.contracts.errors import InputError


def subset(questions: Sequence[Question], limit: int | None, seed: int, whole_groups: bool) -> list[Question]:
    """`limit` questions in file order, drawn by groups; at most that many if a group is never cut.

    The draw is a function of (seed, group), so it is the same for every model and machine.
    Raises: InputError for a limit that is smaller than every group that must stay whole.
    """
    if limit is None or limit >= len(questions):
        return list(questions)
    groups: dict[str, list[int]] = defaultdict(list)
    for place, question in enumerate(questions):
        groups[question.group].append(place)
    taken: list[int] = []
    for name in sorted(groups, key=lambda name: _number(seed, name)):
        room = limit - len(taken)
        if whole_groups and len(groups[name]) > room:
            break  # taking a smaller one in its place would favour small groups
        taken += groups[name][:room]
        if len(taken) == limit:
            break
    if not taken:
        smallest = min(map(len, groups.values()))
        raise InputError(f"limit={limit}: questions come in groups of at least {smallest}; raise limit to that")
    return [questions[place] for place in sorted(taken)]


def share(questions: Sequence[Question], part: int, parts: int) -> list[Question]:
    """The questions of one of several processes; those about the same pictures stay together."""
    if parts == 1:
        return list(questions)
    return [question for question in questions if _number(0, _pictures(question)) % parts == part]


def _pictures(question: Question) -> str:
    return "\n".join(picture.id for picture in question.pictures) or question.id


def _number(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogatepass")).digest()[:8], "big")
