"""What all commands of data_prep share: words to settings, help, and one line and exit code for every end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

from data_prep.command import help_text, parse, run
from vlm.contracts.errors import ConfigError, InputError, Problem, RunError
from vlm.contracts.ranges import PositiveInt

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Tour:
    """An invented command's keys."""

    dir: Annotated[Path, "a folder"]
    from_: Annotated[list[str], "places"] = field(default_factory=list)
    samples: Annotated[PositiveInt | None, "how many"] = None
    kind: Annotated[Literal["long", "short"], "which"] = "long"
    dry: Annotated[bool, "only look"] = False


def told(words: list[str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(Tour, words)
    return [str(problem) for problem in caught.value.problems]


def test_words_become_typed_settings() -> None:
    assert parse(Tour, ["dir=a/b", "from=[x, 'y z']", "samples=3", "dry=true"]) == Tour(
        Path("a/b"), ["x", "y z"], 3, "long", True
    )
    assert parse(Tour, ["dir=a=b", "samples=null", "from=[]"]) == Tour(Path("a=b"))
    assert parse(Tour, ["dir=2024"]).dir == Path("2024")


def test_all_mistakes_are_told_at_once_with_what_was_meant() -> None:
    assert told(["diir=x", "samples=0", "kind=middle", "word", "dry=maybe", "dry=true", "from=x"]) == [
        "diir: unknown key; did you mean 'dir'? keys: dir, from, samples, kind, dry",
        "samples: '0': must be greater than 0",
        "kind: 'middle': must be 'long' or 'short'",
        "word: cannot be read; give key=value",
        "dry: 'maybe': must be a valid boolean, unable to interpret input",
        "dry: is given twice",
        "from: 'x': must be a valid list",
        "dir: missing; a folder",
    ]


def test_help_says_what_the_command_does_its_keys_and_its_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("Walk about.\n\npython -m tour dir=DIR", Tour, lambda tour: 1, ["dir=x", "--help"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == help_text("Walk about.\n\npython -m tour dir=DIR", Tour).splitlines()
    assert shown[:2] == ["Walk about.", ""]
    for line in (
        "  dir=???       a folder",
        "  from=[]       places",
        "  samples=null  how many",
        "  dry=false     only look",
    ):
        assert line in shown
    assert "  75  stopped on request (Ctrl-C)" in shown


def raising(error: BaseException) -> Callable[[Tour], int]:
    def task(tour: Tour) -> int:
        raise error

    return task


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("dir: x is not there"), 2, "dir: x is not there"),
        (ConfigError([Problem("dir", "is odd")]), 2, "1 problem in the configuration"),
        (RunError("a worker was killed"), 1, "a worker was killed"),
        (FileNotFoundError(2, "No such file or directory", "x/y"), 1, "No such file or directory: x/y"),
        (BrokenPipeError(32, "Broken pipe"), 1, "Broken pipe: standard output"),
        (KeyboardInterrupt(), 75, "stopped; the same command starts again"),
    ],
)
def test_every_end_is_one_line_and_an_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("About.", Tour, raising(error), ["dir=x"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(line)
    assert "Traceback" not in shown.err


def test_what_the_task_returns_is_the_exit_code() -> None:
    assert [run("About.", Tour, lambda tour, code=code: code, ["dir=x"]) for code in (0, 1)] == [0, 1]


def test_a_mistake_of_the_program_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run("About.", Tour, lambda tour: 1 // 0, ["dir=x"])


@pytest.mark.parametrize("module", ["prepare", "verify", "browse"])
def test_help_pages_need_no_large_library(module: str) -> None:
    code = f"import sys, data_prep.{module}; sys.exit(' '.join({{'torch', 'numpy', 'pydantic', 'hydra'}} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
