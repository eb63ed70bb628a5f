"""Questions about small drawn pictures, and models and stand-ins that answer them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import Any

from PIL import Image

from vlm.contracts.benchmark import Picture, Question, Reply, Scored
from vlm.contracts.settings import BenchmarkSettings
from vlm.evaluation.prompts import Asked
from vlm.evaluation.results import Answered, results
from vlm.evaluation.score import scorer
from vlm.evaluation.sheets import settings_id

COLOURS = {"red": (220, 30, 30), "green": (20, 160, 60), "blue": (40, 60, 220), "grey": (90, 90, 90)}


def drawn(number: int, size: tuple[int, int] = (24, 20)) -> bytes:
    """A PNG; different for different numbers."""
    picture = Image.new("RGB", size, list(COLOURS.values())[number % 4])
    picture.paste((250, 250 - number % 200, 10), (number % 7, number % 5, number % 7 + 9, number % 5 + 8))
    target = BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


def picture(number: int, size: tuple[int, int] = (24, 20), read: Callable[[], bytes] | None = None) -> Picture:
    return Picture(f"{number}.png", read or partial(drawn, number, size))


def question(number: int, reference: Any = None, pictures: Sequence[int] = (0,), **more: Any) -> Question:
    shown = tuple(map(picture, pictures))
    group = shown[0].id if shown else str(number)
    return Question(f"q{number}", group, **{"text": "nine", "reference": reference, "pictures": shown, **more})


def settings(**changes: Any) -> BenchmarkSettings:
    """Of POPE's kind, greedy, with the bare question."""
    plain: dict[str, Any] = {
        "name": "small", "scorer": "pope", "variants": ["vlmevalkit"], "split_by": [], "reader": {},
        "prompt": "{question}", "option": "{letter}. {text}", "decoding": "greedy", "candidates": None,
        "normalise": "none", "max_new_tokens": 5, "controls": ["blank", "shuffled"], "prior": None, "get": "draw them",
        "license": "MIT",
    }  # fmt: skip
    return BenchmarkSettings(**{**plain, **changes})


class Speaker:
    """Answers without a model, some questions at a time. say: question, what it was asked -> its answer."""

    def __init__(self, say: Callable[[Question, Asked], str], at_once: int = 3) -> None:
        self.say, self.at_once = say, at_once
        self.asked: list[Asked] = []

    def __call__(self, questions: Sequence[Question], put: Callable[[Question], Asked]) -> Iterator[list[Reply]]:
        for begin in range(0, len(questions), self.at_once):
            part = [(one, put(one)) for one in questions[begin : begin + self.at_once]]
            self.asked += [asked for _, asked in part]
            yield [Reply(one.id, self.say(one, asked)) for one, asked in part]


def answered(
    benchmark: str,
    said: Sequence[str] | dict[str, Sequence[str]],
    references: Sequence[Any],
    groups: Sequence[str] | None = None,
    **changes: Any,
) -> Answered:
    """said: answers in the questions' order, or condition -> answers."""
    by_condition = said if isinstance(said, dict) else {"seen": said}
    ids = [f"q{number}" for number in range(len(references))]
    found = scorer(benchmark)
    plain = Answered(
        benchmark=benchmark,
        scorer=found,
        variants=[found.default],
        split_by=[],
        ids=ids,
        groups=list(groups or ids),
        references=list(references),
        replies={
            condition: {name: Reply(name, text) for name, text in zip(ids, texts, strict=False)}
            for condition, texts in by_condition.items()
        },
        settings={"id": settings_id({"benchmark": benchmark})},
    )
    return replace(plain, **changes)


def headline_of(*given: Any, **changes: Any) -> dict[str, Any]:
    """The first entry of results.json."""
    return results(answered(*given, **changes))[0]


def scored(scores: Sequence[float], groups: Sequence[str] | None = None) -> list[Scored]:
    names = [f"q{number}" for number in range(len(scores))]
    pairs = zip(names, groups or names, scores, strict=True)
    return [Scored(name, group, "", None, None, score) for name, group, score in pairs]


def digits(labels: Sequence[str]) -> list[dict[str, str]]:
    return [{"answer": label} for label in labels]


def yes_no(labels: Sequence[str]) -> list[dict[str, Any]]:
    return [{"question_id": number, "category": "random", "label": label} for number, label in enumerate(labels)]


def choices(gold: str, options: Sequence[str] = ("red", "green", "blue", "grey")) -> list[dict[str, Any]]:
    """gold: a letter a question."""
    return [{"choices": list(options), "gold": letter, "has_image": True} for letter in gold]
