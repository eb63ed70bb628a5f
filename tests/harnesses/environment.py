"""Environments of their own for packages that this project does not depend on, on top of what the tests run with."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def install(home: Path, *packages: str, alone: tuple[str, ...] = ()) -> Path:
    """Its python. packages: with what they need, as far as it is not there.   alone: these without what they ask for.

    Skips the test if no package registry answers.
    """
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "host.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    command = [home / "bin/pip", "install", "--quiet", "--retries=1", "--disable-pip-version-check"]
    for words in (["--no-deps", *alone], [*packages]):
        if words[-1:] == ["--no-deps"] or not words:
            continue
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=600)
        if done.returncode and "after connection broken" in done.stderr:
            pytest.skip(f"{words[-1]} cannot be installed: no package registry answers")
        assert done.returncode == 0, done.stderr
    return home / "bin/python"


def run(python: Path, *words: object, cwd: Path, **environment: str) -> str:
    """What a program printed; the network is behind a proxy that is not there."""
    nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    done = subprocess.run(
        [python, *map(str, words)],
        cwd=cwd,
        env=os.environ | nowhere | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout
