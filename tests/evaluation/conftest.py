from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.commands import pope
from tests.models.speakers import speaker
from vlm.training.weights import save_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained model."""
    root = tmp_path_factory.mktemp("gpt2")
    save_model(speaker("gpt2_nano", root), root / "model")
    return root / "model"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files of POPE."""
    return pope(tmp_path_factory.mktemp("data"))
