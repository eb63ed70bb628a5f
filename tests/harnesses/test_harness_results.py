"""Files of VLMEvalKit and lmms-eval, in the form in which ms-vlmeval 0.0.20 and lmms-eval 0.7.3 write them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from vlm.contracts.errors import InputError
from vlm.interop.harness_results import Figure, Prediction, read_results

Row = dict[str, Any]
POPE = {"index": 0, "question": "Is it red?", "answer": "Yes", "category": "random,popular", "prediction": "yes."}
CHOICE = {
    "index": 3,
    "question": "Which?",
    "A": "cat",
    "B": "dog",
    "C": "",
    "answer": "B",
    "category": "x",
    "prediction": "B",
}


def table(path: Path, *rows: Row) -> Path:
    """A .tsv or .csv as pandas writes it with every cell in quotes."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",", quoting=csv.QUOTE_ALL)
        writer.writerows([[*rows[0]], *([*row.values()] for row in rows)])
    return path


def predictions(path: Path, **words: str) -> list[Prediction]:
    found = read_results(path, **words)
    assert all(isinstance(entry, Prediction) for entry in found)
    return found  # type: ignore[return-value]


def figures(path: Path) -> dict[tuple[str, str], float]:
    return {(entry.split, entry.metric): entry.value for entry in read_results(path) if isinstance(entry, Figure)}


# -- VLMEvalKit -----------------------------------------------------------------------------------------------------


def test_a_prediction_file_is_told_by_its_name_and_keeps_outputs_as_they_are(tmp_path: Path) -> None:
    raw = "yes.\n  I think\tso, 是的 🙂"
    (found,) = predictions(table(tmp_path / "my_model_POPE.tsv", POPE | {"prediction": raw}))
    assert (found.origin.harness, found.origin.dataset, found.origin.benchmark) == ("VLMEvalKit", "POPE", "pope")
    assert (found.origin.model, found.origin.data) == ("my_model", "three splits in one")
    assert (found.id, found.prediction, found.prompt) == ("0", raw, "Is it red?")
    assert found.reference == {"question_id": "0", "category": "random,popular", "label": "yes"}


@pytest.mark.parametrize(
    ("name", "benchmark", "data"),
    [
        ("m_MME", "mme", ""), ("m_MMBench_DEV_EN", "mmbench", ""), ("m_AI2D_TEST", "ai2d", "letters masked"),
        ("m_AI2D_TEST_NO_MASK", "ai2d", ""), ("m_Video-MME_8frame_subs", "videomme", "8frame_subs"),
        ("m_MVBench_MP4_1fps", "mvbench", "1fps"), ("m_DocVQA_VAL", "docvqa", ""),
    ],
)  # fmt: skip
def test_their_names_are_our_benchmarks_and_what_differs_is_told(
    tmp_path: Path, name: str, benchmark: str, data: str
) -> None:
    (found,) = predictions(table(tmp_path / f"{name}.tsv", CHOICE))
    assert (found.origin.benchmark, found.origin.data, found.origin.model) == (benchmark, data, "m")


@pytest.mark.parametrize(
    ("dataset", "row", "reference"),
    [
        ("MME", {"answer": "No", "category": "count", "image_path": "a.jpg"},
         {"category": "count", "image": "a.jpg", "question_id": "3", "answer": "No"}),
        ("MMBench_DEV_EN", {"l2-category": "y"},
         {"options": {"A": "cat", "B": "dog"}, "gold": "B", "index": "3", "category": "x", "l2-category": "y"}),
        ("AI2D_TEST_NO_MASK", {}, {"options": ["cat", "dog"], "gold": "B"}),
        ("ScienceQA_TEST", {}, {"choices": ["cat", "dog"], "gold": "B", "has_image": True}),
        ("MMMU_DEV_VAL", {}, {"options": ["cat", "dog"], "gold": "B", "question_type": "multiple-choice"}),
        ("MMMU_DEV_VAL", {"B": "Other Answers", "answer": "A"}, None),
        ("TextVQA_VAL", {"answer": "['red', 'dark red']"}, ["red", "dark red"]),
        ("DocVQA_VAL", {"answer": "[sic]"}, ["[sic]"]),
        ("ChartQA_TEST", {"answer": "5%", "split": "test_human"}, {"answer": "5%", "type": "test_human"}),
        ("PathVQA_TEST", {"answer": "yes"}, {"answer": "yes", "answer_type": "closed"}),
    ],
)  # fmt: skip
def test_gold_data_has_the_shape_that_our_scorer_takes(tmp_path: Path, dataset: str, row: Row, reference: Any) -> None:
    (found,) = predictions(table(tmp_path / f"m_{dataset}.tsv", CHOICE | row))
    assert found.reference == reference


def test_predictions_in_json_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "m_POPE.json").write_text(json.dumps([POPE]))
    assert predictions(tmp_path / "m_POPE.json") == predictions(table(tmp_path / "m_POPE.tsv", POPE))


def test_data_that_we_do_not_know_can_be_named(tmp_path: Path) -> None:
    path = table(tmp_path / "m_My_Set.tsv", POPE)
    with pytest.raises(InputError, match="dataset=NAME"):
        read_results(path)
    (found,) = predictions(path, dataset="My_Set")
    assert (found.origin.model, found.origin.dataset, found.origin.benchmark) == ("m", "My_Set", None)


@pytest.mark.parametrize("name", ["m_POPE_auxmatch.tsv", "m_AI2D_TEST_exact_matching_result.tsv", "POPE.tsv"])
def test_intermediate_files_and_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="the name is none of VLMEvalKit's"):
        read_results(table(tmp_path / name, POPE))


def test_figures_are_taken_as_they_were_printed(tmp_path: Path) -> None:
    rows = [
        {"split": "Overall", "Overall": "66.7", "acc": "50.0", "precision": ""},
        {"split": "random", "Overall": "80", "acc": "75.5", "precision": "nan"},
    ]
    found = figures(table(tmp_path / "m_POPE_score.csv", *rows))
    assert found == {
        ("Overall", "Overall"): 66.7, ("Overall", "acc"): 50, ("random", "Overall"): 80, ("random", "acc"): 75.5,
    }  # fmt: skip


def test_an_entry_is_marked_with_its_harness_and_claims_no_interval(tmp_path: Path) -> None:
    (found,) = read_results(table(tmp_path / "m_MME_score.csv", {"perception": "500"}))
    assert isinstance(found, Figure)
    assert found.entry() == {
        "benchmark": "mme", "variant": "VLMEvalKit", "headline": False, "split": "all", "n": None, "score": 500.0,
        "metric": "perception", "top": None, "interval": None,
        "settings": {"model": "m", "dataset": "MME", "data": ""},
    }  # fmt: skip


def test_nested_ratings_become_splits(tmp_path: Path) -> None:
    rating = {"short": {"overall": "0.500", "domain": {"Sport": "0.250"}}, "overall": [3, 4, "75.00%"]}
    (tmp_path / "m_Video-MME_8frame_rating.json").write_text(json.dumps(rating))
    found = figures(tmp_path / "m_Video-MME_8frame_rating.json")
    assert found == {("short", "overall"): 0.5, ("short/domain", "Sport"): 0.25, ("all", "overall"): 75}


def test_a_figure_that_is_no_number_is_an_error_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"_score.csv, line 2, acc: 'high' is no number"):
        read_results(table(tmp_path / "m_POPE_score.csv", {"split": "x", "acc": "high"}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("index\tquestion\n1\tx\n", "no column prediction"),
        ("index\tquestion\tprediction\n", "has no rows"),
        ("", "has no rows"),
        ("index\tquestion\tprediction\n1\tx\n", "row 2 has 2 cells, the head has 3"),
        ("index\tquestion\tprediction\n1\tx\ty\tz\n", "row 2 has 4 cells, the head has 3"),
        ("index\tindex\tprediction\n1\tx\ty\n", "a column name comes twice"),
        ("index\tquestion\tprediction\n1\tx\ty\n1\tx\tz\n", "id 1 comes more than once"),
        ('index\tquestion\tprediction\n1\tx\t"y\n', "is no table"),
    ],
)
def test_a_table_of_another_form_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "m_POPE.tsv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_results(tmp_path / "m_POPE.tsv")


def test_an_answer_longer_than_csv_allows_by_itself_is_read(tmp_path: Path) -> None:
    (found,) = predictions(table(tmp_path / "m_POPE.tsv", POPE | {"prediction": "no " * 100_000}))
    assert len(found.prediction) == 300_000


def test_without_openpyxl_an_xlsx_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "m_POPE.xlsx").write_bytes(b"")
    with pytest.raises(InputError, match=r"pip install openpyxl.*PRED_FORMAT=tsv"):
        read_results(tmp_path / "m_POPE.xlsx")


# -- lmms-eval ------------------------------------------------------------------------------------------------------

SAMPLE = {
    "doc_id": 0, "target": "yes", "filtered_resps": "Yes.", "token_counts": [None], "doc_hash": "74",
    "pope_accuracy": {"question_id": "10", "score": 0.0, "prediction": "yes.", "ground_truth": "yes"},
    "input": "Is it red?\nAnswer.",
}  # fmt: skip


def samples(path: Path, *rows: Row) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_samples_give_outputs_before_filters_and_the_benchmarks_own_ids(tmp_path: Path) -> None:
    folder = tmp_path / "org__model"
    folder.mkdir()
    filtered = SAMPLE | {"doc_id": 1, "resps": ["B. Yes"], "filtered_resps": "B"}
    path = samples(folder / "20260101_000000_samples_pope_adv.jsonl", SAMPLE, filtered)
    first, second = predictions(path)
    assert (first.origin.harness, first.origin.model) == ("lmms-eval", "org__model")
    assert (first.origin.benchmark, first.origin.data) == ("pope", "adversarial")
    assert (first.id, first.question_id, first.prediction, first.prompt) == ("0", "10", "Yes.", "Is it red?\nAnswer.")
    assert first.reference == {"label": "yes"}
    assert second.prediction == "B. Yes"


def test_choices_by_likelihood_have_no_text_and_are_refused(tmp_path: Path) -> None:
    row = SAMPLE | {"filtered_resps": [["11.4", "False"], ["11.3", "False"]]}
    with pytest.raises(InputError, match="line 1: not one text answer"):
        read_results(samples(tmp_path / "20260101_000000_samples_choice.jsonl", row))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"doc_id": 0}\n', "line 1 has no target, filtered_resps, input"),
        ("[1]\n", "line 1 has no doc_id"),
        ("{\n", "line 1 is no valid JSON"),
        ("", "has no rows"),
        (2 * (json.dumps(SAMPLE) + "\n"), "id 0 comes more than once"),
    ],
)
def test_samples_of_another_form_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "20260101_000000_samples_pope.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_results(path)


def test_results_give_a_figure_a_metric_and_none_where_the_harness_has_none(tmp_path: Path) -> None:
    row = {
        "alias": "pope", "pope_accuracy,none": 0.5, "pope_accuracy_stderr,none": 0.1, "pope_recall,none": [],
        "pope_accuracy_stderr_clt,none": 0.2, "by_size,none": {"small": 0.25}, "submission,none": "N/A",
    }  # fmt: skip
    whole = {"results": {"pope": row}, "n-samples": {"pope": {"original": 9, "effective": 4}}, "model_name": "mine"}
    (tmp_path / "20260101_000000_results.json").write_text(json.dumps(whole))
    first, second = read_results(tmp_path / "20260101_000000_results.json")
    assert isinstance(first, Figure)
    assert isinstance(second, Figure)
    assert (first.metric, first.value, first.split, first.n) == ("pope_accuracy", 0.5, "all", 4)
    assert (first.origin.harness, first.origin.benchmark, first.origin.model) == ("lmms-eval", "pope", "mine")
    assert (second.metric, second.value, second.split) == ("by_size", 0.25, "small")


@pytest.mark.parametrize("content", ["[]", '{"results": {}}', '{"scores": 1}', "{"])
def test_results_of_another_form_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x_results.json").write_text(content)
    with pytest.raises(InputError, match=r"no results of lmms-eval|no valid JSON"):
        read_results(tmp_path / "x_results.json")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_results(tmp_path / "m_POPE.xlsx")
