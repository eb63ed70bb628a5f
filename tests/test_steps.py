"""Commands in order: signals reach them once, and none goes on unseen when its parent is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments import steps
from experiments.steps import Failed, Steps

ROOT = Path(__file__).resolve().parents[1]
NOTES = """
import pathlib, signal, sys, time
seen = []
signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
pathlib.Path(sys.argv[1]).touch()
end = time.monotonic() + 30
while not seen and time.monotonic() < end: time.sleep(0.02)
pathlib.Path(sys.argv[2]).write_text("saved" if seen else "never asked")
sys.exit(75)
"""


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)


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
    code = steps.run([sys.executable, "-c", child])
    thread.join()
    assert (code, json.loads(counts.read_text())) == (75, 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no such request")
def test_a_command_is_asked_to_stop_when_we_are_killed(tmp_path):
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    parent = "import sys; from experiments import steps; steps.run([sys.executable, '-c', *sys.argv[1:]])"
    command = [sys.executable, "-c", parent, NOTES, str(ready), str(saved)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        wait_for(ready)
        process.kill()
    wait_for(saved)
    assert saved.read_text() == "saved"


def test_a_terminal_that_goes_away_is_a_request_to_save(tmp_path, request):
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup in front of the tests would make them deaf to it
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, before))

    def hang_up() -> None:
        wait_for(ready)
        os.kill(os.getpid(), signal.SIGHUP)

    thread = threading.Thread(target=hang_up)
    thread.start()
    code = steps.run([sys.executable, "-c", NOTES, str(ready), str(saved)])
    thread.join()
    assert (code, saved.read_text()) == (75, "saved")


def test_a_request_that_finds_a_command_done_still_ends_the_steps(tmp_path):
    child = "import os, signal; os.kill(os.getppid(), signal.SIGINT); signal.signal(signal.SIGINT, signal.SIG_IGN)"
    assert steps.run([sys.executable, "-c", f"{child}; import time; time.sleep(0.5)"]) == 75


def test_a_failure_says_which_step_and_how(capsys, monkeypatch):
    monkeypatch.setattr(steps, "run", lambda *_: -9)
    with pytest.raises(Failed, match=r"sft \(3 of 4\) was killed by SIGKILL; what it said stands above"):
        Steps().step("sft (3 of 4)", "experiments.train", "experiment=x")
    assert "-m experiments.train experiment=x" in capsys.readouterr().err
