"""The quickstart takes what can be had, goes on where it was, and tells what happened; nothing is fetched here."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from data_prep.reading.packages import Fetched
from data_prep.rows import SourceFile
from experiments import quickstart
from experiments.ledger import Ledger
from vlm.contracts.errors import InputError


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """The commands that would have run; `answers` maps a word in a command, or a missing client, to an exit code."""
    ran: list[str] = []
    answers: dict[str, int] = {}

    def run(command: list[str]) -> int:
        ran.append(" ".join(command[2:]))
        return next((code for word, code in answers.items() if word in ran[-1]), 0)

    def fetch(package, cache):
        if f"{package.client} client" in answers:
            raise InputError(f"{package.client} is missing; install it")
        return Fetched(tmp_path / "file", SourceFile("file", 2_000_000, "0"), 1.5)

    monkeypatch.setattr(quickstart, "run", run)
    monkeypatch.setattr(quickstart, "fetch", fetch)
    monkeypatch.setattr(quickstart, "DATA", tmp_path / "data")
    monkeypatch.setattr(quickstart, "RUNS", tmp_path / "runs")
    return ran, answers


def test_it_prepares_trains_and_reports_in_that_order(commands):
    ran, _ = commands
    assert quickstart.main() == 0
    assert [line.split()[0] for line in ran] == [
        "data_prep.prepare", "data_prep.prepare", "experiments.train", "experiments.train", "experiments.report",
    ]  # fmt: skip
    assert "-m experiment=purevlm data=mnist llm.attention=tensor,dot seed=0,1 phase.epochs=3" in ran[2]


def test_a_set_that_is_prepared_is_not_fetched_again(commands, tmp_path):
    ran, answers = commands
    answers["npm client"] = 2
    for split in ("mnist/train", "mnist/test", "captions_small/train", "captions_small/val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        (tmp_path / "data" / split / "manifest.json").touch()
    assert quickstart.main() == 0
    assert not [line for line in ran if line.startswith("data_prep")]
    assert "data=mnist" in ran[0]


def test_without_npm_the_sweep_runs_on_what_pip_gives_and_says_so(commands, capsys):
    ran, answers = commands
    answers["npm client"] = 2
    assert quickstart.main() == 0
    assert "data=digits_small" in ran[2]
    assert "data=easy_vqa_captions" in ran[3]
    told = capsys.readouterr().err
    assert "npm is missing; install it" in told
    assert "Data: digits_small, easy_vqa_captions" in told


def test_without_any_client_nothing_is_started(commands, capsys):
    ran, answers = commands
    answers |= {"npm client": 2, "pip client": 2}
    assert quickstart.main() == 2
    assert ran == []
    assert "pip is missing" in capsys.readouterr().err


def test_a_failed_system_keeps_neither_the_other_nor_the_report_from_running(commands, capsys):
    ran, answers = commands
    answers["experiment=purevlm"] = 1
    assert quickstart.main() == 1
    assert [line.split()[0] for line in ran[2:]] == ["experiments.train", "experiments.train", "experiments.report"]
    assert "Finished runs are kept" in capsys.readouterr().err


def test_a_stop_ends_it_with_the_code_for_going_on(commands, capsys):
    ran, answers = commands
    answers["experiment=purevlm"] = 75
    assert quickstart.main() == 75
    assert ran[-1].startswith("experiments.train -m")
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


def test_a_signal_reaches_the_command_once(tmp_path):
    """In a group of its own, or a terminal's Ctrl-C would reach it twice: from the terminal and forwarded."""
    counts, ready = tmp_path / "signals.json", tmp_path / "ready"
    child = (
        "import json, pathlib, signal, sys, time\n"
        "seen = []\n"
        "signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "end = time.monotonic() + 20\n"
        "while not seen and time.monotonic() < end: time.sleep(0.02)\n"
        "time.sleep(0.3)\n"
        f"pathlib.Path({str(counts)!r}).write_text(json.dumps(len(seen)))\n"
        "sys.exit(75)\n"
    )

    def interrupt() -> None:
        while not ready.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    code = quickstart.run([sys.executable, "-c", child])
    thread.join()
    assert (code, json.loads(counts.read_text())) == (75, 1)


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
    run = tmp_path / "supravl_nano" / "0123456789ab"
    (run / "samples").mkdir(parents=True)
    (run / "status.json").touch()
    (run / "samples" / "0000.png").touch()
    told = quickstart.next_steps(quickstart.CAPTIONS[0])
    assert f"model={run} image={Path(run, 'samples', '0000.png')}" in told
