"""Packing and branches: the same numbers as rows of their own."""

from __future__ import annotations

import pytest
import torch

import vlm
from vlm.contracts.batch import IGNORE, PADDING, VISUAL, Batch
from vlm.models.mask import attention_mask, segment_mask

SYSTEMS = {
    "gpt2": ["experiment=supravl_nano", "llm.max_positions=120"],
    "tiny": ["experiment=purevlm", "llm.max_positions=120"],
    "dot": ["experiment=purevlm", "llm.max_positions=120", "llm.attention=dot"],
}


@pytest.fixture(params=SYSTEMS)
def model(request):
    torch.manual_seed(3)
    return vlm.build_model(SYSTEMS[request.param]).double().eval()


def layout(model, segments: list[tuple[int, list[int], bool]], padding: int = 0) -> Batch:
    """One row of segments (parent, text, has a picture), each beginning where its parent ends."""
    spec, shape = model.processor.spec, model.processor.views.spec
    count = spec.count(shape.height, shape.width, None)
    ids, positions, segment, parent, slots, ends = [], [], [], [], [], []
    for number, (above, text, has_picture) in enumerate(segments):
        piece = ([VISUAL] * count if has_picture else []) + text
        begin = ends[above] if above >= 0 else 0
        ids += piece
        positions += range(begin, begin + len(piece))
        segment += [number] * len(piece)
        parent.append(above)
        ends.append(begin + len(piece))
        slots += [[0, len(slots)]] if has_picture else []
    ids, positions, segment = ids + [0] * padding, positions + [0] * padding, segment + [PADDING] * padding
    row = torch.tensor([ids])
    generator = torch.Generator().manual_seed(0)
    views = torch.rand(max(1, len(slots)), shape.channels, shape.height, shape.width, generator=generator).double()
    return Batch(
        ids=row,
        labels=torch.where(row >= 0, row, IGNORE),
        positions=torch.tensor([positions]),
        segment=torch.tensor([segment]),
        parent=torch.tensor(parent),
        views=views,
        slots=torch.tensor(slots).reshape(-1, 2),
        pictures=torch.arange(len(views)),
    )


def test_two_samples_packed_in_one_row_score_as_two_rows(model):
    first, second = (-1, [3, 1, 4, 1, 5], True), (-1, [9, 2, 6], True)
    packed = model(layout(model, [first, second], padding=2)).logp[0]
    alone = layout(model, [first])
    length = alone.ids.shape[1]
    torch.testing.assert_close(packed[: length - 1], model(alone).logp[0])
    other = layout(model, [first, second])
    other_alone = layout(model, [second])
    other_alone.views = other.views[1:]
    tail = model(other_alone).logp[0]
    torch.testing.assert_close(packed[length : length + len(tail)], tail)


def test_two_answers_on_one_prefix_score_as_two_rows(model):
    prefix, chosen, rejected = [3, 1, 4], [1, 5, 9], [2, 6]
    pair = layout(model, [(-1, prefix, True), (0, chosen, False), (0, rejected, False)])
    hidden = model.llm(
        model.fusion(pair, model.encoder, model.connector, model.llm)[0], pair.positions, attention_mask(pair)
    )
    begin = pair.ids.shape[1] - len(chosen) - len(rejected)
    for branch, at in ((chosen, begin), (rejected, begin + len(chosen))):
        row = layout(model, [(-1, prefix + branch, True)])
        whole = model.llm(model.fusion(row, model.encoder, model.connector, model.llm)[0], row.positions)
        torch.testing.assert_close(hidden[:, at : at + len(branch)], whole[:, begin:])


def test_changing_one_sample_of_a_pack_leaves_the_other_bit_for_bit(model):
    pieces = [(-1, [3, 1, 4, 1, 5], True), (-1, [9, 2, 6], True)]
    batch = layout(model, pieces)
    length = layout(model, pieces[:1]).ids.shape[1]
    before = model(batch).logp[0, length:]
    batch.ids[0, length - 1] = 7
    assert torch.equal(model(batch).logp[0, length:], before)


def test_a_segment_sees_itself_causally_and_all_of_its_ancestors():
    seen = segment_mask(torch.tensor([[0, 0, 1, 1, 2, PADDING]]), torch.tensor([-1, 0, 0]))[0, 0]
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_a_text_only_batch_still_reaches_every_parameter(model):
    batch = layout(model, [(-1, [3, 1, 4], False)])
    model(batch).logp.sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if not name.startswith("llm"))
