"""Runs commands in processes of their own, as a user would, and looks at what they loaded and left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# Ends like the command itself, unless the command loaded what only a run needs.
WITHOUT_TORCH = """
import runpy, sys
module, sys.argv[1:] = sys.argv[1], sys.argv[2:]
code = 0
try:
    runpy.run_module(module, run_name="__main__")
except SystemExit as end:
    code = end.code or 0
heavy = {"torch", "lightning", "transformers", "wandb"} & sys.modules.keys()
sys.exit(f"loaded {sorted(heavy)}" if heavy else code)
"""


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("VLM_", "HYDRA_"))}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}


def run(module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """python -m <module> in `cwd`; fails if it loads torch or its like."""
    command = [sys.executable, "-c", WITHOUT_TORCH, module, *arguments]
    ended = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120)
    assert "loaded [" not in ended.stderr, ended.stderr
    return ended
