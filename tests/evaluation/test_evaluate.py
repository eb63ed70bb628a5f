"""The evaluation command from files to results: stops, parts, subsets, changed settings, and what it refuses."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tests.evaluation.commands import (
    PLAIN,
    SHORT,
    command,
    entries,
    environment,
    lines,
    mme,
    pope,
    run,
    scienceqa,
    vqa,
    words,
)  # fmt: skip
from tests.evaluation.readers.written import put
from tests.prepared import ROOT
from vlm import library
from vlm.training.weights import save_model


@pytest.fixture(scope="module")
def whole(model, data, tmp_path_factory) -> Path:
    """An evaluation that nothing disturbed, with both controls."""
    out = tmp_path_factory.mktemp("whole")
    code, _, told = run(*words(model, data, out, *PLAIN))
    assert code == 0, told
    return out


@pytest.fixture
def no_model(monkeypatch) -> None:
    """Whoever loads a model asks what has an answer already."""

    def load(source):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(library, "load_model", load)


def sheets(out: Path) -> list[Path]:
    return sorted((out / "sheets").glob("*-*"))


def test_an_evaluation_leaves_predictions_results_and_a_page(whole):
    (entry,) = entries(whole)
    assert (entry["benchmark"], entry["n"], entry["groups"], entry["split"]) == ("pope", 24, 6, "all")
    assert set(entry["baselines"]) == {
        "always yes", "always no", "random answer", "empty", "the model with grey pictures", "the model with other questions' pictures",
    }  # fmt: skip
    assert entry["baselines"]["always yes"]["score"] == 0.5
    assert (entry["verdict"], entry["details"]["pictures"]["verdict"]) == (
        "not above baseline",
        "not shown to use its pictures",
    )
    assert entry["settings"]["data"].keys() == {"coco_pope_random.json"}
    first = lines(whole)[0]
    assert (first["id"], first["group"], first["prompt"]) == ("random/0", "val2014/0.png", "<image 1>is it red?")
    assert first["reference"] == {"question_id": 0, "category": "random", "label": "no"}
    assert (whole / "results.html").is_file()


def test_the_table_shows_score_interval_best_baseline_and_verdict(model, data, whole, no_model):
    code, said, told = run(*words(model, data, whole, *PLAIN))
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()[:2]] == ["benchmark", "pope"]
    assert "always yes" in said or "random answer" in said
    assert "not above baseline" in said
    assert said.splitlines()[-1].endswith("results.html")
    assert "pope: only 6 independent groups: intervals are too narrow, most of all near the ends" in told


def test_the_same_command_again_asks_nothing_and_gives_the_same(model, data, whole, no_model):
    before = entries(whole), lines(whole), {path: path.read_bytes() for path in whole.glob("sheets/*/*.jsonl")}
    assert run(*words(model, data, whole, *PLAIN))[0] == 0
    after = entries(whole), lines(whole), {path: path.read_bytes() for path in whole.glob("sheets/*/*.jsonl")}
    assert after == before


def test_results_depend_neither_on_the_batch_nor_on_the_number_of_parts(model, data, whole, tmp_path):
    for part in range(3):
        code, said, told = run(*words(model, data, tmp_path, *PLAIN, f"part={part}/3", f"batch={1 + 3 * part}"))
        assert (code, said) == (0, ""), told
        assert not (tmp_path / "results.json").exists()
    assert run(*words(model, data, tmp_path, *PLAIN))[0] == 0
    assert len(list(tmp_path.glob("sheets/*/seen.*of3.jsonl"))) >= 2  # a part may hold no picture of so few
    assert not list(tmp_path.glob("sheets/*/seen.0of1.jsonl"))
    assert lines(tmp_path) == lines(whole)
    assert entries(tmp_path) == entries(whole)


def test_grey_pictures_are_shared_out_as_the_pictures_that_they_stand_for(model, data, whole, tmp_path):
    """All of them are one picture; shared out by it, one part would answer all and the others wait."""
    for part in range(2):
        assert run(*words(model, data, tmp_path, *PLAIN, f"part={part}/2"))[0] == 0
    shares = {
        condition: [set(json.loads(line)["id"] for line in file.read_text().splitlines()) for file in sorted(tmp_path.glob(f"sheets/*/{condition}.*of2.jsonl"))]
        for condition in ("seen", "blank", "shuffled")
    }  # fmt: skip
    first, second = shares["seen"]
    assert 0 < len(first) < 24
    assert (len(first | second), first & second) == (24, set())
    assert shares["blank"] == shares["shuffled"] == shares["seen"]
    assert run(*words(model, data, tmp_path, *PLAIN))[0] == 0
    assert (lines(tmp_path), entries(tmp_path)) == (lines(whole), entries(whole))


@pytest.mark.slow
def test_several_processes_on_one_machine_give_the_same(model, data, whole, tmp_path):
    code, _, told = run(*words(model, data, tmp_path, *PLAIN, "processes=2"))
    assert code == 0, told
    assert len(list(tmp_path.glob("sheets/*/seen.*of2.jsonl"))) == 2
    assert (lines(tmp_path), entries(tmp_path)) == (lines(whole), entries(whole))


def test_a_killed_evaluation_goes_on_without_asking_anything_again(model, tmp_path):
    given = [*words(model, pope(tmp_path / "data", pictures=40, each=6), tmp_path / "out", *SHORT), "batch=2"]
    process = subprocess.Popen(
        command(*given), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while process.poll() is None:
        files = list(tmp_path.glob("out/sheets/*/seen.0of1.jsonl"))
        if files and files[0].read_bytes().count(b"\n") > 20:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    assert process.wait(60) == -signal.SIGKILL, process.communicate()[1]
    (file,) = tmp_path.glob("out/sheets/*/seen.0of1.jsonl")
    kept = file.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    assert 20 < kept.count(b"\n") < 240
    assert run(*given)[0] == 0
    assert file.read_bytes().startswith(kept)
    assert file.read_bytes().count(b"\n") == 240  # each question once
    assert run(*words(model, tmp_path / "data", tmp_path / "again", *SHORT))[0] == 0
    assert lines(tmp_path / "out") == lines(tmp_path / "again")
    assert entries(tmp_path / "out") == entries(tmp_path / "again")


def test_of_two_evaluations_into_one_folder_the_second_is_refused(model, data, tmp_path):
    given = words(model, data, tmp_path, *SHORT)
    assert run(*given, "part=0/2")[0] == 0
    (sheet,) = sheets(tmp_path)
    with FileLock(sheet / "seen.0of1.lock"):
        code, _, told = run(*given)
    assert code == 2
    assert "another process answers this benchmark here; wait for it, or name another folder with out=DIR" in told
    assert run(*given)[0] == 0


def test_other_settings_files_or_weights_are_another_sheet_and_never_mix(model, data, whole, tmp_path):
    out, changed = tmp_path / "out", tmp_path / "data"
    shutil.copytree(data, changed)
    table = changed / "pope" / "coco_pope_random.json"
    put(table, table.read_text().replace("is it red", "is it blue"))
    assert run(*words(model, data, out, *SHORT))[0] == 0
    (first,) = sheets(out)
    before = (first / "seen.0of1.jsonl").read_bytes()
    assert run(*words(model, changed, out, *SHORT))[0] == 0
    assert run(*words(model, data, out, *SHORT, "limit=8"))[0] == 0
    assert run(*words(model, data, out, *SHORT, "change.pope.max_new_tokens=3"))[0] == 0
    assert (len(sheets(out)), (first / "seen.0of1.jsonl").read_bytes()) == (4, before)
    found = {entry["settings"]["id"]: entry["n"] for entry in entries(out)}
    assert sorted(found.values()) == [8, 24, 24, 24]
    told = [line["settings"] for line in lines(out)]
    assert {name: told.count(name) for name in found} == found
    other = tmp_path / "model"
    shutil.copytree(model, other)
    trained = library.load_model(model)
    next(trained.connector.parameters()).data.mul_(2)
    save_model(trained, other)
    assert run(*words(other, data, out, *SHORT))[0] == 0
    assert len(sheets(out)) == 5
    (entry,) = entries(out)  # of these weights alone
    assert entry["settings"]["weights"] not in {one["settings"]["weights"] for one in entries(whole)}


def test_what_only_scores_or_moves_changes_no_answer(model, data, whole, tmp_path, no_model):
    """Variants, splits and the page's text are asked of the same answers; so are a copied model and copied files."""
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    shutil.copytree(model, tmp_path / "copy")
    shutil.copytree(data, tmp_path / "data")
    more = ["change.pope.variants=[official,lmms]", "change.pope.split_by=[category]"]
    given = [word for word in PLAIN if "variants" not in word and "split_by" not in word]
    assert run(*words(tmp_path / "copy", tmp_path / "data", out, *given, *more))[0] == 0
    assert [(entry["variant"], entry["headline"]) for entry in entries(out)] == [("official", True), ("lmms", False)]


@pytest.mark.parametrize(("limit", "n"), [(7, 7), (24, 24), (1000, 24)])
def test_a_limit_asks_exactly_so_many(model, data, tmp_path, limit, n):
    assert run(*words(model, data, tmp_path, *SHORT, f"limit={limit}"))[0] == 0
    (entry,) = entries(tmp_path)
    assert (entry["n"], len(lines(tmp_path)), entry["settings"]["limit"]) == (n, n, limit if limit < 24 else None)


def test_a_limit_follows_the_seed_and_draws_the_same_for_every_model(model, data, tmp_path):
    drawn = {}
    for seed in (0, 0, 1, 2):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        assert run(*words(model, data, out, *SHORT, "limit=5", f"seed={seed}"))[0] == 0
        drawn.setdefault(seed, set()).add(tuple(line["id"] for line in lines(out)))
    assert len(drawn[0]) == 1
    assert len(set.union(*drawn.values())) > 1


def test_a_limit_never_cuts_a_pair_of_mme(model, tmp_path):
    asked = ["benchmarks=[mme]", "change.mme.reader.expected=null", "change.mme.prompt='{asked}'", "controls=[]"]
    given = words(
        model, mme(tmp_path / "data"), tmp_path / "out", *asked, "change.mme.variants=[lmms]", "decoding=likelihood"
    )
    assert run(*given, "limit=7")[0] == 0
    (entry, *splits) = entries(tmp_path / "out")
    assert entry["n"] == 6 == sum(split["n"] for split in splits)
    assert entry["baselines"]["always yes"]["score"] == 50.0 * len(splits or [0])
    code, _, told = run(*given, "limit=1")
    assert (code, "limit=1: questions come in groups of at least 2; raise limit to that" in told) == (2, True)


def test_likelihood_gives_every_question_a_readable_answer(model, data, tmp_path):
    assert run(*words(model, data, tmp_path, *SHORT, "decoding=likelihood"))[0] == 0
    (entry,) = entries(tmp_path)
    assert {line["prediction"] for line in lines(tmp_path)} <= {"yes", "no"}
    assert (entry["unparsable"], entry["truncated"], entry["settings"]["decoding"]) == (0.0, 0.0, "likelihood")


def test_choices_are_asked_again_with_moved_options_and_without_letters(model, tmp_path):
    data = scienceqa(tmp_path / "data")
    asked = ["benchmarks=[scienceqa]", "change.scienceqa.reader.expected=null", "change.scienceqa.max_new_tokens=2"]
    asked += ["change.scienceqa.variants=[llava]", "change.scienceqa.prompt='{question} {options}'", "controls=[]"]
    assert run(*words(model, data, tmp_path / "out", *asked, "shifts=6"))[0] == 0
    (sheet,) = sheets(tmp_path / "out")
    counts = {file.name.split(".")[0]: file.read_text().count("\n") for file in sheet.glob("*.0of1.jsonl")}
    assert counts == {"seen": 12, "shift1": 6, "shift2": 6, "unlettered": 6}
    entry, *splits = entries(tmp_path / "out")
    assert set(entry["details"]["bias"]["shifts"]) == {"0", "1", "2"}
    assert {split["split"]: split["n"] for split in splits} == {"has_image=True": 6, "has_image=False": 6}
    assert entry["baselines"]["always A"]["score"] == pytest.approx(1 / 3)


def test_open_answers_are_scored_by_answer_type(model, tmp_path):
    asked = ["benchmarks=[vqav2]", "change.vqav2.reader.expected=null", "change.vqav2.variants=[lmms]", "controls=[]"]
    assert run(*words(model, vqa(tmp_path / "data"), tmp_path / "out", *asked, "change.vqav2.max_new_tokens=2"))[0] == 0
    told = {entry["split"]: entry for entry in entries(tmp_path / "out")}
    assert {name: entry["n"] for name, entry in told.items()} == {
        "all": 12,
        "answer_type=other": 6,
        "answer_type=yes/no": 6,
    }
    assert told["answer_type=yes/no"]["baselines"]["always yes"]["score"] == 1.0


def test_prompts_that_do_not_fit_are_counted_and_never_cut(model, data, tmp_path):
    long = "'" + "very " * 60 + "{question}'"
    given = [word for word in SHORT if "prompt" not in word]
    assert run(*words(model, data, tmp_path, *given, f"change.pope.prompt={long}"))[0] == 0
    (entry,) = entries(tmp_path)
    assert (entry["details"]["too_long_n"], entry["unparsable"], entry["score"]) == (24, 1.0, 0.0)
    assert "24 prompts do not fit into the model's positions; they count as wrong" in entry["details"]["warnings"]


def test_a_damaged_picture_ends_the_run_and_the_answers_before_it_are_kept(model, tmp_path):
    data = pope(tmp_path / "data", pictures=8)
    table = data / "pope" / "coco_pope_random.json"
    put(
        table, table.read_text().replace('"7.png", "text": "is ', '"7.png", "text": "is it red it red it red ')
    )  # asked last
    picture = data / "pope" / "val2014" / "7.png"
    good = picture.read_bytes()
    picture.write_bytes(good[:60])
    given = [*words(model, data, tmp_path / "out", *SHORT), "batch=2"]
    code, _, told = run(*given)
    assert code == 1
    assert "val2014/7.png cannot be shown" in told
    assert "Copy its files again; the same command goes on" in told
    (file,) = tmp_path.glob("out/sheets/*/seen.0of1.jsonl")
    kept = file.read_bytes()
    assert kept.count(b"\n") > 0
    assert not (tmp_path / "out" / "results.json").exists()
    picture.write_bytes(good)
    assert run(*given)[0] == 0
    assert file.read_bytes().startswith(kept)
    assert entries(tmp_path / "out")[0]["n"] == 32
