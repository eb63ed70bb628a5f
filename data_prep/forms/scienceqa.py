"""ScienceQA: questions with four choices about a picture, in its problems and splits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_prep.forms.facts import Item, draw, number
from data_prep.forms.material import File, Material

CHOICES = 4
ABOUT = """One question a picture: which of four colours has its shape? Right answers are spread evenly over the four
places, so a constant choice gets 25.0."""


@dataclass(frozen=True)
class Problem:
    """wrong: answers to draw from, at least three."""

    key: str
    question: str
    right: str
    wrong: Sequence[str]
    picture: bytes
    topic: str
    skill: str


def files(material: Material) -> Iterator[File]:
    problems = [
        Problem(
            fact.key, f"What is the color of the {fact.shape}?", fact.colour, fact.other_colours, fact.data,
            "colors", "Name the color of a shape",
        )
        for fact in material.facts
    ]  # fmt: skip
    yield from written(problems, "natural science")


def written(problems: Sequence[Problem], subject: str) -> Iterator[File]:
    """The two tables and the pictures. Problems are numbered from 1 in their order."""
    places = balanced([problem.key for problem in problems])
    table = {}
    for pid, problem in enumerate(problems, 1):
        drawn = sample(problem.wrong, CHOICES - 1, problem.key)
        answer = places[problem.key]
        table[str(pid)] = {
            "question": problem.question,
            "choices": [*drawn[:answer], problem.right, *drawn[answer:]],
            "answer": answer,
            "hint": "",
            "image": "image.png",
            "task": "closed choice",
            "grade": "grade1",
            "subject": subject,
            "topic": problem.topic,
            "category": problem.topic,
            "skill": problem.skill,
            "lecture": "",
            "solution": "",
            "split": "test",
        }
        yield File(f"images/test/{pid}/image.png", problem.picture)
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": list(table)}
    yield File("problems.json", json.dumps(table, indent=1).encode(), len(table))
    yield File("pid_splits.json", json.dumps(splits).encode())


def balanced(keys: Sequence[str]) -> dict[str, int]:
    """Key -> place of its right answer; all places equally often, in an order that a hash shuffles."""
    shuffled = sorted(keys, key=lambda key: number("place", key))
    return {key: rank % CHOICES for rank, key in enumerate(shuffled)}


def sample(options: Sequence[Item], count: int, key: str) -> list[Item]:
    """`count` different ones, in an order drawn by a hash of the key."""
    left, taken = list(options), []
    for place in range(count):
        taken.append(draw(left, "choice", key, place))
        left.remove(taken[-1])
    return taken
