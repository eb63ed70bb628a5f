"""What the page is made of: which errors, and which words."""

from __future__ import annotations

import pytest

from tests.reporting.evaluation_folder import row
from vlm.reporting.evaluation_errors import shorten, truth
from vlm.reporting.evaluation_worst import worst


def test_the_worst_are_wholly_wrong_first_one_a_picture_and_from_every_split():
    rows = [
        row(n, reference={"category": "ab"[n % 2]}, score=(0.0, 0.3, 1.0)[n % 3], group=f"g{n // 2}") for n in range(60)
    ]
    chosen = worst(rows, 8, ["category"])
    assert [found["score"] for found in chosen] == [0.0] * 8
    assert len({found["group"] for found in chosen}) == 8
    assert [found["reference"]["category"] for found in chosen] == list("abababab")


def test_the_worst_do_not_depend_on_the_order_of_the_file():
    rows = [row(n, score=float(n % 5 == 0)) for n in range(2000)]
    assert worst(rows, 12) == worst(reversed(rows), 12)
    assert worst(rows, 12) != worst(rows, 12, seed=1)


def test_few_errors_are_all_shown_and_right_answers_never():
    rows = [row(0, score=1.0), row(3, score=0.6), row(6, score=0.0)]
    assert [found["id"] for found in worst(rows, 9)] == ["q6", "q3"]
    assert worst(rows, 0) == []


def test_a_split_without_further_errors_leaves_its_places_to_the_others():
    rows = [row(3 * n, reference={"category": "a" if n else "b"}) for n in range(9)]
    assert len(worst(rows, 6, ["category"])) == 6


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("yes", "yes"),
        ({"label": "no"}, "no"),
        ({"options": {"A": "cat", "B": "dog"}, "gold": "B"}, "B: dog"),
        ({"choices": ["cat", "dog"], "gold": "A"}, "A: cat"),
        ({"answers": ["two", "2", "2"], "answer_type": "number"}, "2 (2 times), two"),
        ({"answer": "5%", "type": "human"}, "5%"),
        (["a man", "a boy"], "a man, a boy"),
        (None, "null"),
    ],
)
def test_gold_data_of_every_benchmark_become_words(reference, words):
    assert truth(reference) == words


def test_a_shortened_text_tells_its_length():
    found = shorten("x" * 9000)
    assert found.length == 9000
    assert len(found.text) < 500
    assert shorten("short").length is None
