"""One thread, no network, no GPU unless a test asks for it; torch is never imported by this file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Before torch and tokenizers are loaded, here and in every command that a test starts.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "offline",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

# A shell's background job is deaf to Ctrl-C and makes the commands that tests start deaf too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
Command = Callable[..., subprocess.CompletedProcess[str]]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        if os.environ.get("REQUIRE_GPU") == "1":
            pytest.fail("REQUIRE_GPU=1, but torch sees no CUDA device")
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """A test that trained with more threads leaves nothing behind for the next."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def run_command(tmp_path: Path) -> Command:
    """run_command("experiments.train", "seed=1", timeout=60, NAME="value"): python -m … in a process of its own.

    Its runs and data lie under tmp_path unless the command says otherwise; capitals are environment variables.
    """

    def run(
        module: str, *words: str, timeout: float = 120, cwd: Path = ROOT, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        places = {"VLM_RUNS": str(tmp_path / "runs"), "VLM_DATA": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=cwd,
            env=os.environ | places | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
