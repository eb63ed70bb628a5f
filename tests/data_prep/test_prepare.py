"""The command itself: exit codes, streams, and every file of conf/source against the code that reads it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from data_prep.budget import PERCENT
from data_prep.settings import check
from tests.data_prep.conftest import encoded, picture
from vlm.contracts.errors import ConfigError

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path.stem for path in (ROOT / "conf/source").glob("*.yaml"))


def composed(*overrides: str) -> dict:
    with initialize_config_module("conf", version_base=None):
        config = OmegaConf.to_container(compose("prepare", list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return config


def command(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "data_prep.prepare", *arguments], cwd=ROOT, capture_output=True, text=True, **options
    )


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_builds_its_converter_and_knows_its_licences(source: str) -> None:
    settings, converter = check(composed(f"source={source}"))
    assert settings.source.name == source
    assert callable(converter.rows)
    assert {package.license for package in settings.source.packages.values()} <= set(settings.source.licenses)
    if settings.source.any_part:
        assert set(settings.source.reader["licenses"]) == set(settings.source.packages)


@pytest.mark.parametrize("source", SOURCES)
def test_every_key_of_a_source_has_a_comment_or_an_explained_parent(source: str) -> None:
    lines = (ROOT / f"conf/source/{source}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    top = [line for line in lines if line[:1].isalpha() and not line.startswith(("defaults:", "reader:", "pictures:"))]
    assert [line for line in top if "#" not in line] == []


def test_all_mistakes_are_told_at_once() -> None:
    config = composed("source=mnist", "+soruce=1", "limit=ten", "source.pictures.max_side=0", "+source.budget.typo=3")
    with pytest.raises(ConfigError) as caught:
        check(config)
    keys = {problem.key for problem in caught.value.problems}
    assert keys == {"soruce", "limit", "source.pictures.max_side", "source.budget.typo"}
    with pytest.raises(ConfigError, match=r"source.budget.typo: no such reason; known: annotation_missing"):
        check(composed("source=mnist", "+source.budget.typo=3"))
    with pytest.raises(ConfigError, match=r"source.reader.colour: "):
        check(composed("source=mnist", "+source.reader.colour=3"))
    with pytest.raises(ConfigError, match=r"'os.system' is not below data_prep.sets"):
        check(composed("source=mnist", "source.reader._target_=os.system"))
    with pytest.raises(ConfigError, match="parts: mnist has no part 'emoji'; parts: data"):
        check(composed("source=mnist", "parts=[emoji]"))


def test_budgets_are_known_reasons() -> None:
    for source in SOURCES:
        assert set(composed(f"source={source}")["source"]["budget"]) <= set(PERCENT)


@pytest.mark.parametrize("arguments", [[], ["source=nope"], ["source=mnist", "limt=3"], ["source=mnist", "limit=x"]])
def test_a_refused_command_line_exits_with_2(arguments: list[str]) -> None:
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_help_names_sources_keys_and_exit_codes() -> None:
    done = command("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in [*SOURCES, "from: null", "dry_run: false", "75  stopped"]:
        assert word in done.stdout


def test_a_mistyped_source_is_told_with_what_was_meant() -> None:
    told = command("source=minst", "limt=3").stderr
    assert "there is no source 'minst'; did you mean 'mnist'? sources: caption_table" in told
    assert "2. limt: unknown key; did you mean 'limit'?" in told


def test_all_mistakes_of_a_command_line_are_one_numbered_list() -> None:
    words = ["parts=[emojy]", "source.pictures.maxside=3", "limit=x", "limt=3", "out=[1", "source.budget.typo=3"]
    told = command("source=captions_small", *words).stderr
    assert told.startswith("6 problems in the configuration")
    assert "  6. " in told
    assert "no part 'emojy'; did you mean 'emoji'?" in told
    assert "source.pictures.maxside: unknown key; did you mean 'max_side'?" in told
    assert "append" not in told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "mine"
    home.mkdir()
    for number in range(60):
        (home / f"{number}.png").write_bytes(encoded(picture(number)))
    (home / "captions.tsv").write_text("".join(f"{number}.png\ta kite {number}\n" for number in range(60)))
    return home


def test_results_go_to_standard_output_and_a_second_call_is_told(folder: Path, tmp_path: Path) -> None:
    call = ["source=caption_table", f"from={folder}", f"out={tmp_path / 'out'}"]
    first, second = command(*call), command(*call)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "prepared caption_table in" in first.stderr
    assert "already prepared" in second.stderr
    assert first.stdout == second.stdout
    assert {json.loads(line)["split"] for line in first.stdout.splitlines()} == {"train", "val"}


def test_a_refused_folder_exits_with_2_and_a_disk_that_fails_with_1(folder: Path, tmp_path: Path) -> None:
    assert command("source=caption_table", f"from={tmp_path / 'none'}").returncode == 2
    (tmp_path / "file").write_text("")
    failed = command("source=caption_table", f"from={folder}", f"out={tmp_path / 'file'}")
    assert failed.returncode == 1
    assert "out=DIR" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_no_manifest_and_says_how_to_go_on(folder: Path, tmp_path: Path, sent: signal.Signals) -> None:
    table = folder / "captions.tsv"
    table.write_text("".join(f"{number % 60}.png\ta kite {number}\n" for number in range(200_000)))
    arguments = ["source=caption_table", f"from={folder}", f"out={tmp_path / 'out'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "data_prep.prepare", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    while not list((tmp_path / "out").rglob("*.part")):
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(sent)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 75
    assert "the same command goes on" in told
    # What was committed before the stop waits for the same command; that it finishes alike is shown in test_going_on.
    assert not list((tmp_path / "out").rglob("manifest.json"))
