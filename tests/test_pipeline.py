"""A pipeline: planned and refused before anything starts, carried out in order, found again, stopped and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tests import prepared
from tests.configs import commands
from vlm import readiness
from vlm.build import Composed, compose
from vlm.contracts.errors import ConfigError, Problem
from vlm.contracts.pipeline import PipelineConfig
from vlm.contracts.places import config_dir
from vlm.pipeline import Plan, plan, words

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted(path.stem for path in (config_dir() / "pipeline").glob("*.yaml"))
SHORT = {
    "data": {
        "train": {"mnist": {"rows": [0, 200]}},
        "validate": {"mnist": {"rows": [200, 240]}},
        "test": {"mnist": None},
    },
    "phase": {"global_batch": 8, "max_steps": 20, "save_every": 10, "validate_every": 20, "samples": 0},
    "hardware": {"threads": 1},
}
PHASES = {
    "one": {"experiment": "purevlm"},
    "two": {"experiment": "purevlm", "weights": {"encoder": "one"}},
    "three": {"experiment": "purevlm", "init_from": "two"},
}


def asked(*more: str, **changed: object) -> list[str]:
    """Three short phases of one small system."""
    keys = {"name": "tiny", "phases": PHASES, "change": dict.fromkeys(PHASES, SHORT), **changed}
    return [*words(keys), "logging.wandb=disabled", "logging.progress=false", *more]


def planned(*overrides: str) -> Plan:
    return plan(compose(overrides, "pipeline", PipelineConfig))


def refusals(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        readiness.refuse(planned(*overrides))
    return [str(problem) for problem in refused.value.problems]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return prepared.digits(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def places(data, tmp_path) -> list[str]:
    return [f"paths.data={data}", f"paths.runs={tmp_path / 'runs'}"]


# -- planned ------------------------------------------------------------------------------------------------------


def test_each_phase_is_an_ordinary_run_that_names_the_folders_of_earlier_ones(places, tmp_path):
    found = planned(*asked(*places))
    one, two, three = found.phases
    assert one.words[0] == "experiment=purevlm"
    assert f"weights.encoder={one.folder}" in two.words
    assert f"init_from={two.folder}" in three.words
    assert all(phase.folder.parent == tmp_path / "runs" / "purevlm" for phase in found.phases)
    assert len({phase.folder for phase in found.phases}) == 3


def test_an_id_does_not_depend_on_where_runs_lie_nor_on_whether_they_exist(places, tmp_path):
    before = [phase.folder.name for phase in planned(*asked(*places)).phases]
    for phase in planned(*asked(*places)).phases:
        phase.folder.mkdir(parents=True)
        (phase.folder / "status.json").write_text("{}")
    assert [phase.folder.name for phase in planned(*asked(*places)).phases] == before
    assert [phase.folder.name for phase in planned(*asked(f"paths.runs={tmp_path}")).phases] == before


def test_a_changed_phase_gets_a_new_id_and_so_do_all_behind_it(places):
    before = planned(*asked(*places))
    after = planned(*asked(*places, "change.two.phase.max_steps=21"))
    same = [a.folder == b.folder for a, b in zip(before.phases, after.phases, strict=True)]
    assert same == [True, False, False]
    assert before.id != after.id


def test_hardware_and_logging_are_passed_on_as_typed_and_seed_to_every_phase(places):
    found = planned(*asked(*places, "hardware=cpu", "hardware.workers=1", "seed=3"))
    for phase in found.phases:
        assert {"hardware=cpu", "hardware.workers=1", "logging.progress=false", "seed=3"} <= set(phase.words)
        assert phase.settings.hardware.workers == 1


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_pipeline_composes_with_all_its_phases(name):
    """All but the folder of a published language model is there."""
    base = ["base=somewhere"] if "base: ???" in (config_dir() / "pipeline" / f"{name}.yaml").read_text() else []
    composed = compose([f"pipeline={name}", *base], "pipeline", PipelineConfig)
    found, problems = looked_at(composed)
    assert [problem for problem in problems if not problem.key.endswith("llm.path")] == []
    if found is not None:
        assert [phase.name for phase in found.phases] == ["contrastive", "alignment", "sft", "dpo"]
        assert found.phases[1].given == {"weights.encoder": "contrastive"}


def looked_at(composed: Composed) -> tuple[Plan | None, list[Problem]]:
    try:
        return plan(composed), []
    except ConfigError as error:
        return None, error.problems


# -- refused ------------------------------------------------------------------------------------------------------


def test_mistakes_of_all_phases_are_told_at_once_with_their_phase_and_key(places):
    told = refusals(*asked(*places, "change.one.phase.max_stepz=1", "change.three.encoder.rank=0", "hardware.nodez=1"))
    assert any(
        "command line: change.one.phase.max_stepz: unknown key; did you mean 'max_steps'?" in line for line in told
    )
    assert any(line.startswith("command line: change.three.encoder.rank: 0 is given") for line in told)
    assert any(line.startswith("phase two, command line: hardware.nodez: unknown key") for line in told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["phases.one.experiment=purevl"],
            "phases.one.experiment: there is no experiment 'purevl'; did you mean 'purevlm'?",
        ),
        (
            ["phases.two.init_from=three"],
            "phases.two.init_from: 'three': no phase before two; a folder is given as change",
        ),
        (["phases.two.init_from=on"], "phases.two.init_from: 'on': there is no phase 'on'; did you mean 'one'?"),
        (["phases.one=null"], "phases.two.weights.encoder: 'one': there is no phase 'one'"),
        (["phases={one: null, two: null, three: null}"], "phases: there is none; choose pipeline=NAME"),
        (["change.tow.seed=1"], "change.tow: there is no phase 'tow'; did you mean 'two'?"),
        (["from=three", "until=two"], "until: two comes before from=three; the order is one, two, three"),
        (["evaluate={models: [four], suite: small}"], "evaluate.models: there is no phase 'four'"),
        (["evaluate={models: [one]}"], "evaluate: give either suite=NAME or benchmarks=[NAME,...]"),
        (["from=two"], "from: one must be finished before two, and "),
        (["prepare=[[source=nmist]]"], "prepare: there is no source 'nmist'; did you mean 'mnist'?"),
        (["prepare=[[nowhere]]"], "prepare: 'nowhere' must be source=NAME, or one of forms, language_model"),
        (["disk_gb=1000000"], "paths.runs: "),
    ],
)
def test_each_mistake_has_its_message(places, words, told):
    words = [
        word.replace("[source=", '["source=').replace("]]", '"]]') if "source=" in word else word for word in words
    ]
    assert any(
        line.partition("yaml: ")[2].startswith(told) or told in line for line in refusals(*asked(*places, *words))
    )


def test_data_that_are_missing_are_refused_unless_a_preparation_will_make_them(tmp_path):
    places = [f"paths.data={tmp_path / 'none'}", f"paths.runs={tmp_path}"]
    told = refusals(*asked(*places))
    assert [line.split(":")[0] for line in told] == ["phase one", "phase two", "phase three"]
    assert all("prepare it with: make data SOURCE=mnist" in line for line in told)
    assert readiness.refuse(planned(*asked(*places, 'prepare=[["source=mnist"],["source=easy_vqa"]]'))) == [
        ["source=mnist"]
    ]


def test_a_run_that_another_process_works_on_is_refused_before_the_first_phase(places):
    folder = planned(*asked(*places)).phases[1].folder
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        told = refusals(*asked(*places))
    assert told == [f"phase two: another process works in {folder}; wait for it, then give the same command again"]


def test_it_is_checked_and_told_without_torch_and_nothing_is_made(places, tmp_path):
    ended = commands.run("experiments.pipeline", *asked(*places, "dry_run=true"), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert [line.split(":")[0] for line in ended.stdout.splitlines()[::2]] == ["one", "two", "three"]
    ended = commands.run("experiments.pipeline", *asked(*places, "change.two.encoder.rank=0"), cwd=tmp_path)
    assert ended.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_several_seeds_are_several_pipelines(places, tmp_path):
    ended = commands.run("experiments.pipeline", *asked(*places, "dry_run=true", "seed=0,1"), "-m", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len({line for line in ended.stdout.splitlines() if line.startswith("one: to train")}) == 2


# -- carried out --------------------------------------------------------------------------------------------------


def carried_out(*overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.pipeline", *overrides]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def record_of(ended: subprocess.CompletedProcess[str]) -> dict:
    return json.loads(Path(ended.stdout.splitlines()[-1]).read_text())


def test_it_stops_goes_on_finishes_and_finds_itself_again(places, tmp_path):
    """Ctrl-C while the first phase trains: that phase saves; then the same command to the end, and once more."""
    slow = [*asked(*places), "change.one.phase.max_steps=3000"]
    command = [sys.executable, "-m", "experiments.pipeline", *slow]
    first = planned(*slow).phases[0]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, process_group=0) as process:
        end = time.monotonic() + 120
        while (
            first.status.get("step", 0) == 0 and not list(first.folder.glob("checkpoints/*")) and time.monotonic() < end
        ):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 75
    assert "the same command goes on" in told
    assert first.status["state"] == "stopped"

    ended = carried_out(*asked(*places, "until=two"))
    assert ended.returncode == 0, ended.stderr
    assert [phase["state"] for phase in record_of(ended)["phases"].values()] == ["finished", "finished", "missing"]
    ended = carried_out(*asked(*places, "from=three"))
    assert ended.returncode == 0, ended.stderr
    assert "one: finished before" in ended.stderr
    record = record_of(ended)
    plan = planned(*asked(*places))
    assert record["id"] == plan.id
    assert [phase["run"] for phase in record["phases"].values()] == [str(phase.folder) for phase in plan.phases]
    assert record["phases"]["three"]["weights"] == {"init_from": str(plan.phases[1].folder)}
    assert [line.split()[0] for line in ended.stdout.splitlines()[1:-1]] == ["one", "two", "three"]
    again = carried_out(*asked(*places))
    assert again.returncode == 0
    assert "== " not in again.stderr


def test_a_phase_that_fails_ends_it_with_the_phase_and_keeps_the_others(places):
    ended = carried_out(*asked(*places, "change.two.init_from=/nowhere"))
    assert ended.returncode == 1
    assert (
        "two (2 of 3) ended with exit code 2; what it said stands above; phases that are finished are kept"
        in ended.stderr
    )
