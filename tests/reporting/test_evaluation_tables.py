"""What the page and the comparison are made of: which errors, which words, which columns."""

from __future__ import annotations

import pytest

from tests.reporting.evaluation_folder import entry, row, write
from vlm.contracts.errors import InputError
from vlm.reporting.evaluation_compare import comparison_table
from vlm.reporting.evaluation_errors import shorten, truth
from vlm.reporting.evaluation_records import read_results
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


def test_a_comparison_has_a_column_a_model_and_a_line_for_what_was_measured_alike(tmp_path):
    ours = read_results(write(tmp_path / "a", [entry(), entry("vqav2", n=1000)]) / "results.json")
    worse = entry(score=0.5, interval=[0.49, 0.51], verdict="not above baseline")
    theirs = read_results(write(tmp_path / "b", [worse, entry("vqav2", n=5000, unparsable=0.2)]) / "results.json")
    lines = comparison_table({"small": ours, "large": theirs}).splitlines()
    assert lines[0].split() == ["benchmark", "small", "large"]
    assert "pope all (vlmevalkit, n=9000)" in lines[2]
    assert "61.2 % [59.8 to 62.6]" in lines[2]
    assert "50.0 % [49.0 to 51.0] =" in lines[2]
    assert "not measured" in lines[3]
    assert "not measured" in lines[4]
    assert "? more than 5 %" in "\n".join(lines)


def test_results_of_another_setting_never_share_a_line(tmp_path):
    plain = read_results(write(tmp_path / "a", [entry()]) / "results.json")
    for number, settings in enumerate([{"ocr": "easyocr"}, {"decoding": "likelihood"}, {"data": {"q": "ee"}}]):
        other = read_results(write(tmp_path / str(number), [entry(settings=settings)]) / "results.json")
        assert comparison_table({"a": plain, "b": other}).count("not measured") == 2


def test_one_model_is_no_comparison(tmp_path):
    with pytest.raises(InputError, match="two models"):
        comparison_table({"a": read_results(write(tmp_path, [entry()]) / "results.json")})
