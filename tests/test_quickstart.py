"""The quickstart takes what can be had, goes on where it was, and tells what happened; nothing is fetched here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep.reading.packages import Fetched
from data_prep.rows import SourceFile
from experiments import quickstart, steps
from experiments.ledger import Ledger
from vlm.contracts.errors import InputError
from vlm.contracts.pipeline import PipelineConfig


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """The commands that would have run; `answers` maps a word in a command, or a missing client, to an exit code."""
    ran: list[str] = []
    answers: dict[str, int] = {}

    def run(command: list[str], stdout=None, environment=None) -> int:
        ran.append(" ".join(command[2:]))
        return next((code for word, code in answers.items() if word in ran[-1]), 0)

    def fetch(package, cache):
        if f"{package.client} client" in answers:
            raise InputError(f"{package.client} is missing; install it")
        return Fetched(tmp_path / "file", SourceFile("file", 2_000_000, "0"), 1.5)

    monkeypatch.setattr(steps, "run", run)
    monkeypatch.setattr(quickstart, "fetch", fetch)
    monkeypatch.setattr(quickstart, "DATA", tmp_path / "data")
    monkeypatch.setattr(quickstart, "RUNS", tmp_path / "runs")
    return ran, answers


def test_it_prepares_trains_and_reports_in_that_order(commands):
    ran, _ = commands
    assert quickstart.main() == 0
    assert [line.split()[0] for line in ran] == [
        "data_prep.prepare", "data_prep.prepare", "experiments.pipeline", "experiments.train", "experiments.train",
        "experiments.report",
    ]  # fmt: skip
    assert ran[2].startswith("experiments.pipeline pipeline=keural_nano paths.data=")
    assert ran[3].startswith("experiments.train experiment=purevlm data=mnist phase.epochs=3")


def test_a_set_that_is_prepared_is_not_fetched_again(commands, tmp_path):
    ran, answers = commands
    answers["npm client"] = 2
    for split in ("mnist/train", "mnist/test", "captions_small/train", "captions_small/val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        (tmp_path / "data" / split / "manifest.json").touch()
    assert quickstart.main() == 0
    assert not [line for line in ran if line.startswith("data_prep")]
    assert "data=mnist" in ran[1]


def test_without_npm_everything_runs_on_what_pip_gives_and_says_so(commands, capsys):
    ran, answers = commands
    answers["npm client"] = 2
    assert quickstart.main() == 0
    assert "change.contrastive.data=easy_vqa_positions" in ran[2]
    assert "data=digits_small" in ran[3]
    assert "data=easy_vqa_captions" in ran[4]
    told = capsys.readouterr().err
    assert "npm is missing; install it" in told
    assert "Data: digits_small, easy_vqa_captions" in told


def test_without_any_client_nothing_is_started(commands, capsys):
    ran, answers = commands
    answers |= {"npm client": 2, "pip client": 2}
    assert quickstart.main() == 2
    assert ran == []
    assert "pip is missing" in capsys.readouterr().err


def test_a_failed_pipeline_keeps_neither_the_systems_nor_the_report_from_running(commands, capsys):
    ran, answers = commands
    answers["pipeline=keural_nano"] = 1
    assert quickstart.main() == 1
    assert [line.split()[0] for line in ran[3:]] == ["experiments.train", "experiments.train", "experiments.report"]
    assert "Finished runs are kept" in capsys.readouterr().err


def test_a_stop_ends_it_with_the_code_for_going_on(commands, capsys):
    ran, answers = commands
    answers["pipeline=keural_nano"] = 75
    assert quickstart.main() == 75
    assert ran[-1].startswith("experiments.pipeline")
    assert "the same command goes on" in capsys.readouterr().err


def test_downloads_stand_apart_in_the_ledger(commands, capsys):
    assert quickstart.main() == 0
    assert "download: mnist" in capsys.readouterr().err


def test_its_keys_exist_and_its_sets_have_a_split_to_watch():
    from vlm.build import compose

    for experiment, choices in (("purevlm", quickstart.DIGITS), ("supravl_nano", quickstart.CAPTIONS)):
        for choice in choices:
            config = compose([f"experiment={experiment}", f"data={choice.source}", *choice.keys]).config
            assert config["data"]["validate"]
            compose([f"pipeline={quickstart.PIPELINE}", *choice.chain], "pipeline", PipelineConfig)


def test_a_ledger_measures_a_part_that_fails_too():
    ledger = Ledger()

    def failing() -> None:
        with ledger.part("first"):
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        failing()
    ledger.add("second", 2.0, "cached")
    assert [name for name, _, _ in ledger.entries] == ["first", "second"]
    assert "second" in str(ledger)
    assert str(ledger).splitlines()[-1].split()[:2] == ["together", "2.0"]


def test_next_steps_name_the_run_that_was_made(monkeypatch, tmp_path):
    monkeypatch.setattr(quickstart, "RUNS", tmp_path)
    run = tmp_path / "keural_nano_dpo" / "0123456789ab"
    (run / "samples").mkdir(parents=True)
    (run / "samples" / "0000.png").touch()
    (tmp_path / "pipelines").mkdir()
    record = {"phases": {"sft": {"run": "other"}, "dpo": {"run": str(run)}}}
    (tmp_path / "pipelines" / "keural_nano-0123456789ab.json").write_text(json.dumps(record))
    told = quickstart.next_steps(quickstart.CAPTIONS[0])
    assert f"model={run} image={Path(run, 'samples', '0000.png')}" in told
