"""Long and strange answers are read quickly, by every variant."""

from __future__ import annotations

import time

import pytest

from tests.evaluation.scorers.rows import CHOICES, OPEN, YES_NO, choice
from vlm.evaluation.score import score_answer, scorer

LENGTH = 100_000
SECONDS = 5.0  # a variant needs about 0.1 s; anything quadratic needs minutes
ANSWERS = {
    "nothing": "",
    "blanks": " " * LENGTH,
    "line feeds": "\n" * LENGTH,
    "a loop": "the answer is " * (LENGTH // 14),
    "words": "yes no A B. (C) " * (LENGTH // 16),
    "full stops": "." * LENGTH,
    "brackets": "(" * LENGTH,
    "stars": "answer is " + "*" * LENGTH,
    "digits": "1,0" * (LENGTH // 3),
    "one word": "a" * LENGTH,
    "capitals": "A" * LENGTH,
    "another script": "答案是" * (LENGTH // 3),
    "emoji": "👩‍👩‍👧‍👦" * (LENGTH // 7),
    "a letter that grows": "İ" * LENGTH,
    "no text": "\x00\ufeff\u2028" * (LENGTH // 3),
}
GOLD = {name: choice(name, ["cat", "dog", "cow", "hen"], "B") for name in CHOICES}
GOLD |= dict.fromkeys(YES_NO, "yes") | dict.fromkeys(OPEN, ["cat"] * 10)


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("benchmark", GOLD)
def test_an_answer_of_100000_characters_is_read_in_no_time(benchmark, kind):
    for variant in scorer(benchmark).cases:
        start = time.perf_counter()
        score_answer(benchmark, ANSWERS[kind], GOLD[benchmark], variant)
        assert time.perf_counter() - start < SECONDS, variant
