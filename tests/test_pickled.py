"""Our exceptions reach another process as they are: pickling keeps kind, message and attributes."""

from __future__ import annotations

import pickle

import pytest

from experiments.steps import Failed
from vlm.contracts.errors import BrokenStep, ConfigError, InputError, Mismatch, Problem, RunError
from vlm.data.licences import LicenceRefused
from vlm.data.pictures import PictureError
from vlm.data.shards import RowError
from vlm.models.encoders.quadtree import Refused
from vlm.signature import SignatureError
from vlm.training.stopping import Stopped

ERRORS = [
    Mismatch("width", "33 is odd"),
    Refused("token_budget", "choose 61 or 64"),
    ConfigError([Problem("encoder.grid", "too large", "command line"), Problem("seed", "missing")]),
    InputError("a folder is missing"),
    RunError("step 3: stopped"),
    BrokenStep("step 3: not finite"),
    SignatureError("no class"),
    LicenceRefused("refused"),
    PictureError("media_truncated", "12 bytes"),
    RowError("mnist", "key", 3, "row_malformed", "no turns"),
    Failed("sft (3 of 4)", -9),
    Stopped(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_the_way_to_another_process(error: BaseException):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again), again.args) == (str(error), vars(error), error.args)
