"""Who sees whom: one rule, in two forms that say the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm.contracts.batch import PADDING, Batch
from vlm.models.attention import attend, dot_product
from vlm.models.mask import Spans, attention_mask, segment_mask


@st.composite
def layouts(draw) -> tuple[torch.Tensor, torch.Tensor]:
    """segment [R, L] and parent [S] of rows with branches of branches, and padding anywhere."""
    length, rows, parent = draw(st.integers(1, 24)), [], []
    for _ in range(draw(st.integers(1, 3))):
        row, first = [], len(parent)
        while len(row) < length:
            size = draw(st.integers(1, length - len(row)))
            if draw(st.integers(0, 4)) == 0:
                row += [PADDING] * size
            else:
                row += [len(parent)] * size
                parent.append(draw(st.sampled_from([PADDING, *range(first, len(parent))])))
        rows.append(row)
    return torch.tensor(rows), torch.tensor(parent, dtype=torch.long)


def as_batch(segment: list[list[int]], parent: list[int]) -> Batch:
    lines, nothing = torch.tensor(segment), torch.zeros(0, 2, dtype=torch.long)
    views = torch.zeros(1, 1, 1, 1)
    number = torch.tensor(parent)
    return Batch(lines, lines, lines, lines, number, torch.arange(len(parent)), views, nothing, number)


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


@given(layouts())
@settings(max_examples=60, deadline=None)
def test_spans_say_what_the_mask_says(layout):
    segment, parent = layout
    spans = Spans.of(segment, parent)
    rows, length = segment.shape
    seen = torch.zeros(rows, length, length, dtype=torch.bool)
    begins, ends = spans.begins, [begin + size for begin, size in zip(spans.begins, spans.sizes, strict=True)]
    row = -1
    for run, others in enumerate(spans.seen):
        row += begins[run] == 0
        for query in range(begins[run], ends[run]):
            seen[row, query, query] = True  # padding sees itself in the mask, so that its softmax is not empty
            for other in others:
                seen[row, query, begins[other] : query + 1 if other == run else ends[other]] = True
    assert torch.equal(seen.unsqueeze(1), segment_mask(segment, parent))
    assert torch.equal(spans.dense(), segment_mask(segment, parent))


@given(layouts(), st.integers(1, 24))
@settings(max_examples=60, deadline=None)
def test_attention_by_segments_equals_attention_under_the_mask(layout, last):
    segment, parent = layout
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(len(segment), 2, segment.shape[1], 4, generator=generator).double() for _ in range(3))
    whole = attend(q, k, v, segment_mask(segment, parent), dot_product)
    whole[segment == PADDING] = 0
    spans = Spans.of(segment, parent)
    torch.testing.assert_close(attend(q, k, v, spans, dot_product), whole)
    torch.testing.assert_close(attend(q[:, :, -last:], k, v, spans, dot_product), whole[:, -last:])
    if len(segment) == 1:
        keep = spans.from_first(torch.rand(segment.shape[1], generator=generator) < 0.2)
        for mask in (spans, spans.dense()):
            found = attend(q[:, :, keep], k, v, mask, dot_product, keep)[segment[:, keep] != PADDING]
            torch.testing.assert_close(found, whole[:, keep][segment[:, keep] != PADDING])


def test_without_a_mask_the_kept_positions_see_what_stands_before_them():
    q, k, v = torch.randn(3, 2, 2, 7, 4, generator=torch.Generator().manual_seed(0)).unbind()
    whole, keep = attend(q, k, v, None, dot_product), torch.tensor([1, 3, 4, 6])
    torch.testing.assert_close(attend(q[:, :, keep], k, v, None, dot_product, keep), whole[:, keep])
    torch.testing.assert_close(attend(q[:, :, -3:], k, v, None, dot_product), whole[:, -3:])


def test_only_what_comes_before_the_first_wanted_position_of_a_segment_is_left_out():
    spans = Spans.of(torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2]]), torch.tensor([-1, -1, -1]))
    wanted = torch.tensor([0, 1, 0, 0, 0, 1, 0, 1]).bool()
    assert spans.from_first(wanted).tolist() == [1, 2, 5, 6, 7]


def test_positions_kept_from_the_middle_of_a_segment_are_refused():
    spans = Spans.of(torch.tensor([[0, 0, 0, 1, 1]]), torch.tensor([-1, -1]))
    with pytest.raises(ValueError, match="must be its last ones"):
        spans.asked(torch.tensor([1, 4]))


@pytest.mark.parametrize("segment", [[[0, 0, 0], [1, 1, PADDING]], [[0, 0]], [[0], [1]], [[PADDING], [0]]])
def test_rows_of_one_segment_padded_on_the_right_need_no_mask(segment):
    assert attention_mask(as_batch(segment, [-1] * (1 + max(max(row) for row in segment)))) is None


@pytest.mark.parametrize(
    ("segment", "parent"),
    [([[0, 0, 1]], [-1, -1]), ([[0, 1]], [-1, 0]), ([[PADDING, 0]], [-1]), ([[0, 0, 1], [2, 2, 2]], [-1, -1, -1])],
)
def test_packed_rows_branches_and_padding_on_the_left_need_one(segment, parent):
    assert isinstance(attention_mask(as_batch(segment, parent)), Spans)


def test_a_segment_in_two_pieces_is_refused():
    with pytest.raises(ValueError, match="segment 0 of row 0 comes again in row 1 at position 0"):
        Spans.of(torch.tensor([[0, 0, 1], [0, 2, 2]]), torch.tensor([-1, -1, -1]))


@pytest.mark.parametrize("parent", [[-1, -1, 0], [-1, 1, -1]])
def test_a_parent_in_another_row_or_behind_its_branch_is_refused(parent):
    with pytest.raises(ValueError, match="a parent lies in the same row and has a lower number"):
        Spans.of(torch.tensor([[0, 0, 1], [2, 2, 2]]), torch.tensor(parent))
