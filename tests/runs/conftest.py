from __future__ import annotations

from pathlib import Path

import pytest

from tests import prepared


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small prepared sets `mnist` and `caption_table`."""
    root = tmp_path_factory.mktemp("prepared")
    prepared.digits(root)
    return prepared.captions(root)
