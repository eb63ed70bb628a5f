"""Models that cannot be believed are refused, and what a model cannot see is said with its results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import vlm
from tests.evaluation.commands import SHORT, entries, run, words
from tests.evaluation.readers.test_prepared import chat, prepared
from tests.evaluation.readers.written import put
from vlm.contracts.errors import InputError
from vlm.evaluate import NO_PROMPT
from vlm.training.weights import save_model


@pytest.fixture
def copy(model, tmp_path) -> Path:
    shutil.copytree(model, tmp_path / "model")
    return tmp_path / "model"


def test_a_model_without_the_tokenizer_that_it_learned_is_refused(copy, data, tmp_path):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"is not complete: its tokenizer was learned, and tokenizer\.json is missing"):
        vlm.load_model(copy)
    code, _, told = run(*words(copy, data, tmp_path / "out", *SHORT))
    assert (code, "tokenizer.json is missing" in told) == (2, True), told
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(model, data, tmp_path, value):
    broken = vlm.load_model(model)
    next(broken.connector.parameters()).data.flatten()[0] = value
    save_model(broken, tmp_path / "model")
    code, _, told = run(*words(tmp_path / "model", data, tmp_path / "out", *SHORT))
    assert (code, "weights that are not finite; its training has failed, or the file is damaged" in told) == (2, True)
    assert "model: connector." in told
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_budget_of_tokens_is_refused_where_every_picture_takes_as_many(model, data, tmp_path):
    code, _, told = run(*words(model, data, tmp_path, *SHORT, "token_budget=4"))
    assert (code, "this encoder gives every picture" in told) == (
        2,
        True,
    )


def test_a_model_that_reads_no_prompt_says_so_only_where_there_is_one_to_read(copy, data, tmp_path):
    """Asked about red things without being asked, its score tells nothing; a digit is all that there is to be seen."""
    config = json.loads((copy / "config.json").read_text())
    config["llm"]["template"]["prompt"] = False
    put(copy / "config.json", config)
    shutil.copytree(data, tmp_path / "data")
    prepared(tmp_path / "data", chat(("", "two")), chat(("", "zero")), chat(("", "one")))
    asked = ["benchmarks=[pope,digit_names]", "change.digit_names.reader.folder=digits/test", *SHORT[1:]]
    asked += ["change.digit_names.reader.expected=null", "change.digit_names.max_new_tokens=4"]
    code, _, told = run(*words(copy, tmp_path / "data", tmp_path / "out", *asked))
    assert code == 0, told
    found = {entry["benchmark"]: NO_PROMPT in entry["details"]["warnings"] for entry in entries(tmp_path / "out")}
    assert found == {"pope": True, "digit_names": False}
    assert f"pope: {NO_PROMPT}" in told
