"""From text and pictures to batches."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from vlm.contracts.batch import IGNORE, PADDING, VISUAL
from vlm.contracts.errors import InputError, RunError
from vlm.contracts.sample import Medium, Sample, Turn
from vlm.contracts.vision import FixedCount, VisionSpec
from vlm.data.loader import RETRIES, Reading, Rows, as_conversation
from vlm.data.order import Mix, Source
from vlm.data.processor import Processor
from vlm.data.template import Template
from vlm.data.tokens import Characters, TrainedBPE
from vlm.data.views import BlockMean, Resize


@pytest.fixture
def processor() -> Processor:
    template = Template("<bos>", "<eos>", prompt=True, max_tokens=8)
    return Processor(BlockMean(14), Characters("abc ?", 7), template, VisionSpec(4, FixedCount(3)), positions=64)


def png(value: int = 200, size: tuple[int, int] = (28, 28)) -> Medium:
    from hashlib import sha256

    buffer = io.BytesIO()
    Image.new("L", size, value).save(buffer, "PNG")
    return Medium("image", buffer.getvalue(), sha256(buffer.getvalue()).hexdigest())


def sample(*texts: str, pictures: int = 1, key: str = "s") -> Sample:
    question, *answers = texts
    turns = (Turn("user", (*range(pictures), question)), *(Turn("assistant", (answer,)) for answer in answers))
    return Sample(key, turns, tuple(png(10 * number + 40) for number in range(pictures)))


def test_pictures_stand_in_front_and_answers_carry_loss(processor):
    example = processor.example(sample("a?", "bc"))
    begin, end = processor.tokenizer.special("<bos>"), processor.tokenizer.special("<eos>")
    assert example.ids.tolist() == [VISUAL] * 3 + [begin, 0, 4, 1, 2, end]
    assert example.labels.tolist() == [IGNORE] * 6 + [1, 2, end]
    everything = processor.example(sample("a?", "bc"), all_text=True)
    assert everything.labels.tolist() == [IGNORE] * 4 + [0, 4, 1, 2, end]


def test_an_answer_that_does_not_fit_is_cut_closed_and_counted(processor):
    example = processor.example(sample("", "abcabcabcabc"))
    assert len(example.ids) == 3 + 8
    assert example.labels[-1] == processor.tokenizer.special("<eos>")
    assert example.cut
    assert not processor.example(sample("", "abcabc")).cut


@pytest.mark.parametrize(
    ("texts", "reason"), [(("a", ""), "text_empty"), (("abcabcabc", "a"), "text_long"), (("a",), "text_empty")]
)
def test_a_row_without_target_tokens_is_refused_by_name(processor, texts, reason):
    with pytest.raises(InputError, match=f"^{reason}: "):
        processor.example(sample(*texts))


def test_padding_is_a_segment_of_its_own_and_a_batch_never_lacks_a_view(processor):
    examples = [processor.example(sample("a", "bc")), processor.example(sample("", "b", pictures=0))]
    batch = processor.collate(examples)
    assert batch.ids.shape == (2, 8)
    assert batch.segment[1].tolist() == [1, 1, 1, *[PADDING] * 5]
    assert batch.slots.tolist() == [[0, 0]]
    assert batch.views.shape == (1, 1, 14, 14)
    text_only = processor.collate(examples[1:])
    assert text_only.views.shape == (1, 1, 14, 14)
    assert text_only.slots.shape == (0, 2)
    assert text_only.pictures.tolist() == [-1]


def test_slots_name_the_row_and_the_view(processor):
    examples = [processor.example(sample("a", "b", pictures=number)) for number in (2, 0, 1)]
    batch = processor.collate(examples)
    assert batch.slots.tolist() == [[0, 0], [0, 1], [2, 2]]
    assert batch.pictures.unique().numel() == 2  # the first pictures are equal


def test_text_that_looks_like_a_special_token_is_text():
    tokenizer = TrainedBPE(300, lowercase=True)
    tokenizer.fit(["a cat", "a dog"])
    ids = tokenizer.encode("<eos> A cat")
    assert tokenizer.special("<eos>") not in ids
    assert tokenizer.decode(ids) == "<eos> a cat"
    assert [tokenizer.special(name) for name in ("<pad>", "<bos>", "<eos>", "<unk>")] == [0, 1, 2, 3]


def test_characters_outside_the_alphabet_are_named():
    with pytest.raises(InputError, match="'xy'"):
        Characters("abc", 5).encode("axby")


def test_two_by_two_blocks_are_averaged_exactly():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (28, 28), generator=generator, dtype=torch.uint8)
    (view,) = BlockMean(14)(Image.fromarray(pixels.numpy()))
    torch.testing.assert_close(view[0], pixels.float().reshape(14, 2, 14, 2).mean((1, 3)) / 255)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "CMYK"])
def test_any_picture_becomes_a_view_of_the_right_shape(mode):
    maker = Resize(32, [0.5, 0.5, 0.5], [0.25, 0.25, 0.25])
    views = maker(Image.new("RGB", (50, 20), (255, 0, 128)).convert(mode))
    assert [view.shape for view in views] == [(3, 32, 32)]
    finished = maker.finish(torch.stack(views))
    assert finished.dtype == torch.float32
    assert -2.0 <= finished.min() <= finished.max() <= 2.0


class Listed:
    """A set in memory; None stands for a damaged row."""

    name, start = "listed", 0

    def __init__(self, samples: list[Sample | None], augment: bool = True) -> None:
        self.samples, self.augment = samples, augment
        self.reads = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> Sample:
        self.reads += 1
        found = self.samples[row]
        if found is None:
            raise InputError("media_truncated: it ends early")
        return found


def rows(processor, listed: Listed, cache_gb: float = 0.0) -> Rows:
    mix = Mix([Source(len(listed), len(listed))], seed=0)
    return Rows([listed], mix, processor, Reading([""], all_text=False, cache_gb=cache_gb, seed=0))  # type: ignore[list-item]


def test_a_damaged_row_is_replaced_by_a_pure_function_and_told(processor):
    listed = Listed([None if row % 4 == 0 else sample("", "ab", key=f"s{row}") for row in range(20)])
    first = [rows(processor, listed)[position] for position in range(20)]
    again = [rows(processor, listed)[position] for position in range(20)]
    assert [item.example.key for item in first] == [item.example.key for item in again]
    skips = [skip for item in first for skip in item.skipped]
    assert {skip.row for skip in skips} == {0, 4, 8, 12, 16}
    assert {(skip.set, skip.reason, skip.detail) for skip in skips} == {("listed", "media_truncated", "it ends early")}


def test_a_set_of_damaged_rows_is_an_error_and_not_an_endless_search(processor):
    with pytest.raises(RunError, match=f"{RETRIES} rows in a row cannot be used"):
        rows(processor, Listed([None] * 5))[0]


def test_rows_are_read_once_while_they_fit_into_memory(processor):
    listed = Listed([sample("", "ab", key=str(row)) for row in range(10)])
    cached = rows(processor, listed, cache_gb=1.0)
    items = [cached[position] for position in range(30)]
    assert listed.reads == 10
    uncached = rows(processor, listed)
    assert all(torch.equal(item.example.ids, uncached[p].example.ids) for p, item in enumerate(items))


def test_a_set_that_is_not_augmented_is_shown_unchanged_and_kept(processor):
    """Beside one that is cropped and mirrored: whole pictures where the text says left and right."""
    lines = Image.linear_gradient("L").rotate(30).resize((40, 40))
    kept = io.BytesIO()
    lines.save(kept, "PNG")
    medium = Medium("image", kept.getvalue(), "0" * 64)
    shown = Sample("k", (Turn("user", (0,)), Turn("assistant", ("ab",))), (medium,))
    processor.views = Resize(16, [0.5] * 3, [0.5] * 3, crop_least=0.3, flip=0.5)
    plain, changed = Listed([shown], augment=False), Listed([shown])
    reading = Reading([""], all_text=False, cache_gb=1.0, seed=0)
    read = Rows([plain, changed], Mix([Source(1, 1), Source(1, 1)], seed=0), processor, reading)  # type: ignore[list-item]
    items = [read[position] for position in range(20)]
    views = [[item.example.views[0] for item in items if item.source == source] for source in (0, 1)]
    (unchanged,) = processor.views(lines)
    assert all(torch.equal(view, unchanged) for view in views[0])
    assert not any(torch.equal(view, unchanged) for view in views[1])
    assert len({view.numpy().tobytes() for view in views[1]}) == len(views[1]) == 10
    assert (plain.reads, changed.reads) == (1, 10)


def test_each_epoch_shows_another_of_several_captions(processor):
    captions = ("a", "b", "c", "ab", "bc")
    several = Sample("k", (Turn("user", (0,)), Turn("assistant", ("a",))), (png(),), meta={"captions": captions})
    said = [as_conversation(several, ["?"], visit).turns for visit in range(5)]
    assert {turns[1].parts[0] for turns in said} == set(captions)
    assert all(turns[0].parts == (0, "?") for turns in said)
    cached = rows(processor, Listed([several]), cache_gb=1.0)
    texts = {processor.tokenizer.decode([i for i in cached[p].example.labels.tolist() if i >= 0]) for p in range(5)}
    assert texts == set(captions)
