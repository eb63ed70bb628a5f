"""What the evaluation command refuses, and that nothing is there afterwards."""

from __future__ import annotations

import shutil

import pytest

from tests.configs.commands import run as without_torch
from tests.evaluation.commands import SHORT, run, words
from tests.evaluation.readers.written import put_lines


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["benchmarks=[pop]"], "benchmarks: there is no benchmark 'pop'; did you mean 'pope'"),
        (["benchmarks=[pope]", "change.pope.promt=x"], "change.pope.promt: unknown key; did you mean 'prompt'"),
        (
            ["benchmarks=[pope]", "change.pope.reader.fodler=x"],
            "change.pope.reader.fodler: unknown key; did you mean 'folder'",
        ),
        (["benchmarks=[pope]", "change.mme.prompt=x"], "change: mme is not scored here; scored are pope"),
        (["benchmarks=[pope,pope]"], "benchmarks: pope, pope: name each once"),
        (
            ["benchmarks=[pope]", "change.pope.variants=[strict]"],
            "variants: strict is unknown; choose of vlmevalkit, official, lmms",
        ),
        (["benchmarks=[pope]", "change.pope.scorer=popee"], "scorer 'popee' is unknown"),
        (
            ["benchmarks=[pope]", "change.pope.reader.expected=null", "change.pope.prompt='{qestion}'"],
            "prompt names qestion",
        ),
        (["benchmarks=[pope]", "change.pope.name=mine"], "change.pope.name: stays; copy conf/benchmark/NAME.yaml"),
        (
            ["benchmarks=[pope]", "change.pope.reader.expected=null", "change.pope.split_by=[colour]"],
            "split_by: question random/0 has no plain 'colour'; its gold data have category, label, question_id",
        ),
        (
            ["benchmarks=[pope]", "change.pope.reader.expected=null", "change.pope.scorer=scienceqa", "change.pope.variants=[llava]"],
            "has no list under any of options, choices, candidates",
        ),
        (["benchmarks=[pope]", "change.pope.reader.expected=null", "decoding=likelihood", "change.pope.candidates=['no','no']"], "an answer stands there twice"),
        (["benchmarks=[pope]", "change.pope.reader.expected=null", "change.pope.prompt='{question!r}'"], "a field is its name in braces"),
        (["benchmarks=[pope]"], "24 random, but 3,000 are published; this is another version or not the whole"),
        (["benchmarks=[pope]", "part=3/3"], "part=3/3: write i/n with 0 <= i < n"),
        (["benchmarks=[mme]"], "hub data set lmms-lab/MME, its folder data"),
        ([], "nothing is to be scored; give suite=NAME"),
        (["benchmarks=[pope]", "rescore=x.jsonl"], "model and rescore to work on; give one of"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_refused_before_anything_is_made(model, data, tmp_path, given, message):
    code, said, told = run(*words(model, data, tmp_path / "out", *given))
    assert (code, said) == (2, ""), told
    assert message in told
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_none_is_refused(data, tmp_path):
    for path, message in ((tmp_path / "nowhere", "there is no such folder"), (tmp_path, "this is no saved model")):
        code, _, told = run(*words(path, data, tmp_path / "out", *SHORT))
        assert (code, message in told) == (2, True)


def test_the_command_tells_all_mistakes_at_once_and_loads_no_torch_for_it(tmp_path):
    ended = without_torch(
        "experiments.evaluate", "suite=smal", "decoding=gredy", "limit=0", "modle=x", "ocr=x", cwd=tmp_path
    )
    assert ended.returncode == 2
    assert "5 problems in the configuration; nothing was started" in ended.stderr
    assert all(
        word in ended.stderr for word in ("did you mean 'small'", "did you mean 'model'", "decoding", "limit", "ocr")
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [*rows, rows[0]], "random/0 is there a second time"),
        (lambda rows: [{**rows[0], "label": "maybe"}, *rows[1:]], "label is 'maybe'; one of no, yes is expected"),
        (
            lambda rows: [{**rows[0], "image": "none.png"}, *rows[1:]],
            "1 of 7 pictures are not there, for example val2014/none.png",
        ),
        (lambda rows: [{**rows[0], "text": " "}, *rows[1:]], "row 1: text is empty"),
        (lambda rows: [], "its files hold no question"),
    ],
)
def test_files_that_are_not_as_published_are_refused_by_file_and_row(model, data, tmp_path, change, message):
    shutil.copytree(data, tmp_path / "data")
    rows = [
        {
            "question_id": number,
            "image": f"{number // 4}.png",
            "text": "is it red?",
            "label": "yes" if number % 2 else "no",
        }
        for number in range(24)
    ]
    put_lines(tmp_path / "data" / "pope" / "coco_pope_random.json", change(rows))
    code, _, told = run(*words(model, tmp_path / "data", tmp_path / "out", *SHORT))
    assert (code, message in told, (tmp_path / "out").exists()) == (2, True, False), told
