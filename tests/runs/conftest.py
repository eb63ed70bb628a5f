from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests import prepared
from tests.runs.commands import train
from vlm.training import callbacks


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small prepared sets `mnist` and `caption_table`."""
    root = tmp_path_factory.mktemp("prepared")
    prepared.digits(root)
    return prepared.captions(root)


@pytest.fixture
def stops_at_20(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SIGTERM that arrives while step 20 is being saved."""
    take = callbacks.take

    def taking(trainer, phase, *rest):
        if phase.step == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(trainer, phase, *rest)

    monkeypatch.setattr(callbacks, "take", taking)


@pytest.fixture(scope="session")
def whole(data, tmp_path_factory) -> Path:
    """120 steps that nothing disturbed."""
    return train(data, tmp_path_factory.mktemp("whole"), "phase.max_steps=120")
