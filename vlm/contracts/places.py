"""Where the project's own files lie."""

from __future__ import annotations

from pathlib import Path


def config_dir() -> Path:
    """The folder of YAML files: beside the packages in a checkout, inside vlm/ when installed."""
    package = Path(__file__).resolve().parents[1]
    inside, beside = package / "conf", package.parent / "conf"
    return inside if inside.is_dir() else beside
