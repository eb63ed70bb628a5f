"""The command line before, around and after a task: refusals, sweeps, and exit codes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.configs.commands import REPOSITORY, environment, run

TASK = textwrap.dedent('''
    """A task that ends as its seed says."""
    import sys, time
    from experiments.command import entry
    from vlm.contracts.errors import InputError, RunError

    @entry("train")
    def main(composed):
        seed = composed.config["seed"]
        print("started", seed, flush=True)
        if seed == 2:
            raise InputError("there is no data")
        if seed == 3:
            raise RunError("the loss is not a number")
        if seed == 4:
            sys.exit(75)
        if seed == 5:
            time.sleep(60)
        if seed == 6:
            raise ZeroDivisionError("nobody foresaw this")
        return seed * 10

    if __name__ == "__main__":
        main()
''')


FOLDERS = textwrap.dedent('''
    """What commands that take a finished model are given."""
    import sys
    from experiments.command import entry
    from vlm.contracts.settings import EvaluateConfig, GenerateConfig

    root, *sys.argv[1:] = sys.argv[1:]

    @entry(root, {"evaluate": EvaluateConfig, "generate": GenerateConfig}[root])
    def main(composed):
        print(composed.config["model"], flush=True)

    if __name__ == "__main__":
        main()
''')


@pytest.fixture
def task(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text(TASK)
    return tmp_path


def left_behind(folder: Path) -> list[str]:
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return sorted(name for name in names if name != "task.py")


# -- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["experiment=purevlm", "phase.epoch=3"],
        ["experiment=purevlm", "+phase.epoch=3"],
        ["experiment=purevlm", "++phase.epoch=3"],
        ["--cfg", "job", "experiment=purevlm", "phase.epoch=3"],
        ["-m", "experiment=purevlm", "seed=0,1", "phase.epoch=3"],
    ],
)
def test_a_misspelt_key_is_refused_with_its_remedy_before_any_folder_exists(tmp_path: Path, arguments: list[str]):
    ended = run("experiments.train", *arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert "command line: phase.epoch: unknown key; did you mean 'epochs'?" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert left_behind(tmp_path) == []


def test_all_mistakes_of_a_command_are_told_at_once(tmp_path: Path):
    mistakes = ["experiment=purevl", "encodr=cnn", "llm.heads=0", "phase.targets=answer", "name=[", "phase.epochs=six"]
    ended = run("experiments.train", *mistakes, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("6 problems in the configuration; nothing was started")


def test_one_bad_value_of_a_sweep_is_refused_before_the_first_job(task: Path):
    ended = run("task", "-m", "experiment=purevlm", "seed=0,1", "llm.heads=4,5", cwd=task)
    assert ended.returncode == 2
    assert "llm.heads: 5 heads do not divide width 32 (2 of 4 jobs, first: experiment=purevlm seed=0" in ended.stderr
    assert "started" not in ended.stdout
    assert left_behind(task) == []


def test_globs_and_ranges_of_a_sweep_are_expanded_for_the_check(task: Path):
    ended = run("task", "-m", "experiment=glob(pure*)", "seed=range(0,2)", "encoder.rank=0", cwd=task)
    assert ended.returncode == 2
    assert ended.stderr.count("encoder.rank: 0 is given, but it must be a whole number > 0") == 1
    ended = run("task", "-m", "experiment=glob(zz*)", cwd=task)
    assert "experiment: matches nothing; choices: " in ended.stderr


@pytest.mark.parametrize("command", ["evaluate", "generate"])
def test_a_command_that_takes_a_model_takes_a_folder_whatever_it_is_called(tmp_path: Path, command: str):
    """Although training chooses the kind of its model under the same name; also in a sweep."""
    (tmp_path / "folders.py").write_text(FOLDERS)
    for given in ("runs/a/b", "two_tower"):
        ended = run("folders", command, f"model={given}", cwd=tmp_path)
        assert (ended.returncode, ended.stdout) == (0, f"{given}\n"), ended.stderr
    ended = run("folders", command, "-m", "model=runs/a,two_tower", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert [line for line in ended.stdout.splitlines() if not line.startswith("[")] == ["runs/a", "two_tower"]


def test_of_a_huge_sweep_every_single_value_is_looked_at(task: Path):
    ended = run("task", "-m", "experiment=purevlm", "seed=range(0,40)", "llm.layers=range(0,10)", cwd=task)
    assert ended.returncode == 2
    assert "llm.layers: 0 is given" in ended.stderr


def test_several_values_without_multirun_are_refused_with_the_flag_to_add(task: Path):
    ended = run("task", "experiment=purevlm", "seed=0,1", cwd=task)
    assert ended.returncode == 2
    assert "seed: several values; add -m" in ended.stderr


@pytest.mark.parametrize(
    "flags", [["--config-name", "other"], ["--config-dir", "."], ["-m", "--cfg", "job"], ["--what"]]
)
def test_flags_that_would_go_round_the_check_are_refused(tmp_path: Path, flags: list[str]):
    ended = run("experiments.train", *flags, "experiment=purevlm", cwd=tmp_path)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


# -- answers without a run --------------------------------------------------------------------------------------


def test_help_names_groups_choices_flags_and_exit_codes(tmp_path: Path):
    ended = run("experiments.train", "--help", cwd=tmp_path)
    assert ended.returncode == 0
    for choice in (REPOSITORY / "conf" / "encoder").glob("*.yaml"):
        assert choice.stem in ended.stdout
    for word in ("experiment", "--cfg job", "-m", "75 stopped", "python -m experiments.train"):
        assert word in ended.stdout
    assert left_behind(tmp_path) == []


def test_cfg_job_prints_the_configuration_and_runs_nothing(tmp_path: Path):
    ended = run("experiments.train", "--cfg", "job", "experiment=purevlm", "+weights.encoder=runs/x", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    shown = yaml.safe_load(ended.stdout)
    assert shown["llm"]["vocab_size"] == "${.tokenizer.size}"
    assert shown["weights"] == {"encoder": "runs/x"}
    assert left_behind(tmp_path) == []


def test_cfg_job_resolves_and_shows_one_node(tmp_path: Path):
    ended = run("experiments.train", "--cfg", "job", "--resolve", "-p", "llm", "experiment=purevlm", cwd=tmp_path)
    assert yaml.safe_load(ended.stdout)["vocab_size"] == 17
    ended = run("experiments.train", "--cfg", "job", "-p", "lm", "experiment=purevlm", cwd=tmp_path)
    assert ended.returncode == 2
    assert "did you mean 'llm'?" in ended.stderr


def test_cfg_job_shows_a_configuration_that_still_lacks_values(tmp_path: Path):
    ended = run("experiments.train", "--cfg", "job", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert yaml.safe_load(ended.stdout)["phase"]["max_steps"] is None


def test_the_usage_shows_only_flags_that_the_command_takes(tmp_path: Path):
    ended = run("experiments.train", "--what", cwd=tmp_path)
    assert "[group=choice] [key=value] [-m]" in ended.stderr
    assert "--config" not in ended.stderr
    assert "rerun" not in ended.stderr


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path):
    command = [sys.executable, "-m", "experiments.train", "--help"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("flag", ["--hydra-help", "--info", "--version"])
def test_hydras_own_answers_still_work(tmp_path: Path, flag: str):
    assert run("experiments.train", flag, cwd=tmp_path).returncode == 0
    assert left_behind(tmp_path) == []


# -- tasks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "code", "message"),
    [(1, 0, ""), (2, 2, "there is no data"), (3, 1, "the loss is not a number"), (4, 75, "")],
)
def test_a_task_ends_with_its_exit_code_and_one_message(task: Path, seed: int, code: int, message: str):
    ended = run("task", "experiment=purevlm", f"seed={seed}", cwd=task)
    assert ended.returncode == code
    assert ended.stderr.strip() == message
    assert left_behind(task) == []


@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_no_experiment_is_a_choice(task: Path, sweep: list[str]):
    ended = run("task", *sweep, "experiment=null", "phase.max_steps=1", cwd=task)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "started 0\n"


def test_an_empty_choice_among_others_is_refused(task: Path):
    ended = run("task", "-m", "experiment=null,purevlm", "phase.max_steps=1", cwd=task)
    assert ended.returncode == 2
    assert "experiment: null is no choice to sweep over" in ended.stderr


def test_an_unforeseen_error_shows_where_it_happened(task: Path):
    ended = run("task", "experiment=purevlm", "seed=6", cwd=task)
    assert ended.returncode == 1
    assert "task.py" in ended.stderr
    assert "nobody foresaw this" in ended.stderr


def test_a_failed_job_does_not_stop_the_sweep_but_its_exit_code(task: Path):
    ended = run("task", "-m", "experiment=purevlm", "seed=1,2,3,6,7", cwd=task)
    assert ended.returncode == 1
    assert re.findall(r"started (\d)", ended.stdout) == ["1", "2", "3", "6", "7"]
    assert "failed: experiment=purevlm seed=2\nthere is no data" in ended.stderr
    assert left_behind(task)[:2] == ["runs", "runs/.sweeps"]
    assert all(name.startswith("runs/.sweeps") for name in left_behind(task)[1:])


def test_a_stop_on_request_ends_the_sweep_with_its_code(task: Path):
    ended = run("task", "-m", "experiment=purevlm", "seed=1,4,7", cwd=task)
    assert ended.returncode == 75
    assert re.findall(r"started (\d)", ended.stdout) == ["1", "4"]


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ([], "stopped before there was anything to save; give the same command again"),
        (["-m"], "the same command starts what is missing"),
    ],
)
def test_control_c_before_anything_was_saved_ends_with_a_message(task: Path, sweep: list[str], words: str):
    command = [sys.executable, "task.py", *sweep, "experiment=purevlm", "seed=5"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=task, env=environment(), stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("started")
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 75
    assert words in messages
    assert "Traceback" not in messages
