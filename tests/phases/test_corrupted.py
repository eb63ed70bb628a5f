"""What mDPO compares with: the chosen answers alone, behind small parts of their pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import hf_folder
from tests.models.layouts import VIEWS
from tests.phases.test_dpo import loaded, model_of, phase_of, sample
from vlm.contracts.batch import Batch
from vlm.losses.preference import answers
from vlm.models.vlm import VLM
from vlm.phases.corrupted import chosen_alone, enlarged


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return hf_folder.whole(tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("packed", [False, True], ids=["rows", "packed"])
def test_the_chosen_answers_alone_score_as_beside_the_rejected_ones(folder, packed):
    model = model_of(folder, started=True).double().eval()
    batch = phase_of(model).ready(loaded(model, range(5), packed))
    alone = chosen_alone(batch)
    assert alone.ids.numel() < batch.ids.numel()
    torch.testing.assert_close(answers(model(alone).logp, alone)[0], answers(model(batch).logp, batch)[0])


def test_answers_that_share_no_prefix_keep_the_picture_of_the_chosen_one(folder):
    model = model_of(folder, started=True).double().eval()
    batch = phase_of(model).ready(loaded(model, range(2)))
    beside = side_by_side(model, batch)
    alone = chosen_alone(beside)
    assert len(alone.slots) == 2
    torch.testing.assert_close(answers(model(alone).logp, alone)[0], answers(model(beside).logp, beside)[0])


def side_by_side(model: VLM, batch: Batch) -> Batch:
    """As when nothing is shared: each answer behind a prefix and a picture of its own."""
    made = [model.processor.example(sample(number), pair=True) for number in range(2)]
    apart = []
    for one in made:
        places = [
            torch.cat([(one.segment == 0).nonzero(), (one.segment == branch).nonzero()])[:, 0] for branch in (1, 2)
        ]
        joined = torch.cat(places)
        segment = torch.cat([torch.full_like(own, number) for number, own in enumerate(places)])
        columns = {name: getattr(one, name)[joined] for name in ("ids", "labels", "positions", "changed")}
        apart.append(replace(one, **columns, segment=segment, parent=(-1, -1), slots=(0, 0)))
    return model.processor.finish(model.processor.collate(apart), batch.views.dtype)


def test_a_corrupted_view_is_a_small_part_and_a_function_of_seed_step_and_picture(folder):
    model = model_of(folder)
    batch = phase_of(model).ready(loaded(model, range(3)))
    row = torch.linspace(0, 1, VIEWS.width).expand_as(batch.views).contiguous()
    batch = replace(batch, views=row)
    once = enlarged(batch, 7, 3)
    assert once.shape == batch.views.shape
    assert torch.equal(once, enlarged(batch, 7, 3))
    assert not torch.equal(once, enlarged(batch, 7, 4))
    assert not torch.equal(once, enlarged(batch, 8, 3))
    later = replace(batch, views=batch.views[1:], pictures=batch.pictures[1:])
    assert torch.equal(enlarged(later, 7, 3), once[1:])
    widths = once.amax((1, 2, 3)) - once.amin((1, 2, 3))
    assert (widths < math.sqrt(0.2) + 1e-6).all()
