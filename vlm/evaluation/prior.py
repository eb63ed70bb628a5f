"""What training alone suggests: the most frequent answer to the same question text, without any picture."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from vlm.contracts.benchmark import Question, Reply
from vlm.contracts.sample import Sample
from vlm.data.branches import conversations
from vlm.data.shards import ShardSet
from vlm.evaluation.prompts import LETTERS


def prior_replies(questions: Sequence[Question], directory: Path) -> list[Reply]:
    """The most frequent training answer to each question's text; of all answers for a text that training has not.

    Of a choice the letter of the option that training gives most often. directory: of a prepared split.
    Raises: InputError if it is not there.
    """
    by_text: dict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    shards = ShardSet(directory)
    for row in range(len(shards)):
        for text, answer in _asked(shards.text(row)):
            by_text[_folded(text)][answer] += 1
            overall[answer] += 1
    return [
        Reply(question.id, _answer(question, by_text.get(_folded(question.text)), overall)) for question in questions
    ]


def _answer(question: Question, known: Counter[str] | None, overall: Counter[str]) -> str:
    counts = known or overall
    if not question.options:
        return max(sorted(counts), key=counts.__getitem__)
    options = [_folded(option) for option in question.options]
    folded = Counter[str]()
    for text, count in counts.items():
        folded[_folded(text)] += count
    return LETTERS[max(range(len(options)), key=lambda place: folded[options[place]])]


def _asked(sample: Sample) -> Iterator[tuple[str, str]]:
    """Each question's text and its answer."""
    for turns in conversations(sample):
        for question, answer in pairwise(turns):
            if question.role == "user" and answer.role == "assistant":
                yield tuple(
                    "".join(part for part in turn.parts if isinstance(part, str)) for turn in (question, answer)
                )  # type: ignore[misc]


def _folded(text: str) -> str:
    return " ".join(text.lower().split())
