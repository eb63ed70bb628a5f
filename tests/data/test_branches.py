"""Questions about one picture, pairs of answers, packed rows: laid out once, read as rows of their own."""

from __future__ import annotations

import pytest
import torch

from tests.data.test_rows import png
from vlm.contracts.batch import IGNORE, PADDING, VISUAL
from vlm.contracts.errors import InputError
from vlm.contracts.example import Example
from vlm.contracts.sample import Sample, Turn
from vlm.contracts.vision import FixedCount, VisionSpec
from vlm.data.branches import conversations, join
from vlm.data.processor import Processor
from vlm.data.template import Row, Template
from vlm.data.tokens import Characters
from vlm.data.views import BlockMean


def processor(positions: int = 64, overflow: str = "cut", max_tokens: int = 20) -> Processor:
    template = Template("<bos>", "<eos>", prompt=True, max_tokens=max_tokens)
    spec = VisionSpec(4, FixedCount(3))
    return Processor(BlockMean(14), Characters("abcdef ?", 10), template, spec, positions, overflow)  # type: ignore[arg-type]


def questions(*pairs: tuple[str, str], pictures: int = 1) -> Sample:
    turns = []
    for number, (question, answer) in enumerate(pairs):
        shown = tuple(range(pictures)) if number == 0 else ()
        turns += [Turn("user", (*shown, question)), Turn("assistant", (answer,))]
    media = tuple(png(40 + 10 * number) for number in range(pictures))
    return Sample("k", tuple(turns), media, meta={"independent": True})


def rows_of(example: Example) -> list[tuple[list[int], list[int], list[int]]]:
    """Each branch as the row that it stands for: ids, labels and positions, the prefix in front."""
    found = []
    for segment, parent in enumerate(example.parent):
        if segment in example.parent:
            continue
        own = example.segment == segment
        if parent >= 0:
            before = (example.segment == parent).nonzero().flatten()
            places = torch.cat([before, own.nonzero().flatten()])
        else:
            places = own.nonzero().flatten()
        found.append(tuple(column[places].tolist() for column in (example.ids, example.labels, example.positions)))
    return found


def test_independent_questions_are_branches_of_one_picture_and_read_as_rows_of_their_own():
    sample = questions(("a?", "b"), ("c?", "d"), ("a", "ef"))
    example = processor().example(sample)
    assert example.parent == (-1, 0, 0, 0)
    assert (example.ids == VISUAL).sum() == 3  # the picture stands there once
    alone = [processor().example(Sample("k", turns, sample.media)) for turns in conversations(sample)]
    assert rows_of(example) == [(one.ids.tolist(), one.labels.tolist(), list(range(len(one.ids)))) for one in alone]
    assert example.slots == (0,)


def test_a_preference_pair_shares_everything_before_the_answers():
    sample = Sample("k", (Turn("user", (0, "a?")), Turn("assistant", ("bc",))), (png(),), rejected="bd")
    pair = processor().example(sample, pair=True)
    assert pair.parent == (-1, 0, 0)
    (chosen, _, _), (rejected, _, _) = rows_of(pair)
    spelled = processor().tokenizer.decode
    assert [spelled([id for id in row if id >= 0]) for row in (chosen, rejected)] == ["a?bc", "a?bd"]
    assert (pair.ids == VISUAL).sum() == 3
    assert processor().example(sample).parent == (-1,)  # without pair=True the chosen answer alone


def test_rows_that_share_nothing_stand_side_by_side():
    layout = join([Row([1, 2], [IGNORE, 2]), Row([3, 4], [IGNORE, 4])])
    assert layout.parent == [-1, -1]
    assert layout.positions == [0, 1, 0, 1]


def test_a_prefix_never_ends_at_a_picture():
    rows = [Row([5, VISUAL, VISUAL, tail, 9], [IGNORE] * 4 + [9]) for tail in (6, 7)]
    layout = join(rows)
    assert layout.parent == [-1, -1]  # 5 alone is no prefix worth sharing
    shared = join([Row([5, VISUAL, 8, tail], [IGNORE] * 3 + [tail]) for tail in (6, 7)])
    assert shared.ids == [5, VISUAL, 8, 6, 8, 7]
    assert shared.labels == [IGNORE, IGNORE, IGNORE, 6, IGNORE, 7]
    assert shared.positions == [0, 1, 2, 3, 2, 3]


def test_a_packed_batch_is_one_row_without_padding():
    made = processor()
    examples = [made.example(questions(("a?", "b"), ("c?", "d"))), made.example(questions(("abc", "f"), pictures=2))]
    batch = made.collate(examples, pack=True)
    assert batch.ids.shape == (1, sum(len(example.ids) for example in examples))
    assert (batch.segment != PADDING).all()
    assert batch.parent.tolist() == [-1, 0, 0, -1]
    assert batch.sample.tolist() == [0, 0, 0, 1]
    assert batch.slots.tolist() == [[0, 0], [0, 1], [0, 2]]
    starts = [(batch.segment[0] == segment).nonzero()[0].item() for segment in range(4)]
    assert (batch.labels[0, starts] == IGNORE).all()
    padded = made.collate(examples)
    assert padded.slots.tolist() == [[0, 0], [1, 1], [1, 2]]
    assert padded.sample.tolist() == batch.sample.tolist()


def test_a_sample_with_more_pictures_than_the_model_has_positions_is_left_out_before_any_is_decoded():
    many = Sample("k", (Turn("user", (*range(500), "a?")), Turn("assistant", ("b",))), (png(),) * 500)
    with pytest.raises(InputError, match="media_many: 500 views of 3 tokens leave no room for text in 64 positions"):
        processor().example(many)


def test_text_that_does_not_fit_beside_its_pictures_is_cut_or_left_out_as_asked():
    sample = Sample("k", (Turn("user", (0, "a?")), Turn("assistant", ("b" * 12,))), (png(),))
    cut = processor(positions=12).example(sample)
    assert cut.cut
    assert len(cut.ids) == 12
    assert cut.ids[:3].tolist() == [VISUAL] * 3
    assert cut.labels[-1] == processor().tokenizer.special("<eos>")
    with pytest.raises(InputError, match=r"text_long: the text has more than 9 tokens and data.overflow is skip"):
        processor(positions=12, overflow="skip").example(sample)
    assert not processor(overflow="skip").example(sample).cut
