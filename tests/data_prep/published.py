"""Real packages for tests that check published counts: from the cache of downloads, else those tests are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def cached(client: str, name: str) -> Path:
    """The package's file in `<paths.data>/.cache`; nothing is fetched."""
    home = Path(os.environ.get("VLM_DATA", ROOT / "data")) / ".cache" / client / name
    found = sorted(path for path in home.glob("*") if path.is_file())
    if not found:
        pytest.skip(f"{name} is not in {home.parents[1]}; `make data` of a set that is made from it fetches it")
    return found[0]
