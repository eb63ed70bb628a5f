"""Which samples are pairs of a picture and a caption, and how they are laid out."""

from __future__ import annotations

import hashlib
from io import BytesIO

import pytest
import torch
from PIL import Image

from vlm.contracts.batch import PADDING
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Medium, Sample, Turn
from vlm.contracts.vision import FixedCount, VisionSpec
from vlm.data.captions import CaptionProcessor
from vlm.data.loader import as_conversation
from vlm.data.template import Template
from vlm.data.tokens import Characters
from vlm.data.views import Resize

LETTERS = "abcdefghijklmnopqrstuvwxyz "
MOST = 8


@pytest.fixture
def processor() -> CaptionProcessor:
    tokenizer = Characters(LETTERS, len(LETTERS) + 2)
    template = Template("<bos>", "<eos>", prompt=False, max_tokens=MOST)
    views = Resize(8, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    return CaptionProcessor(views, tokenizer, template, VisionSpec(4, FixedCount(0)), positions=16)


def medium(colour: str) -> Medium:
    file = BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return Medium("image", file.getvalue(), hashlib.sha256(file.getvalue()).hexdigest())


def sample(caption: str = "a dog", *colours: str, **changes) -> Sample:
    media = tuple(medium(colour) for colour in colours or ("red",))
    fields = {"key": "k", "turns": (Turn("user", (0,)), Turn("assistant", (caption,))), "media": media}
    return Sample(**(fields | changes))


def test_a_row_is_begin_caption_end_and_its_picture_is_one_view(processor):
    example = processor.example(sample())
    tokenizer = processor.tokenizer
    assert example.ids.tolist() == [tokenizer.special("<bos>"), *tokenizer.encode("a dog"), tokenizer.special("<eos>")]
    assert len(example.views) == 1
    assert example.slots == ()
    assert not example.cut


def test_the_caption_is_the_last_answer_and_the_question_is_no_part_of_it(processor):
    talk = (
        Turn("user", (0, "what is it")), Turn("assistant", ("cat",)),
        Turn("user", ("really",)), Turn("assistant", ("a dog",)),
    )  # fmt: skip
    wanted = processor.example(sample()).ids.tolist()
    assert processor.example(sample(turns=talk), all_text=True).ids.tolist() == wanted
    questions = sample(turns=talk, meta={"independent": True})
    assert processor.example(questions).ids.tolist() == wanted


def test_every_visit_shows_the_next_of_several_captions(processor):
    row = sample(meta={"captions": ["one", "two", "three"]})
    found = [
        processor.tokenizer.decode(processor.example(as_conversation(row, ["say it"], visit)).ids.tolist())
        for visit in range(4)
    ]
    assert sorted(found[:3]) == sorted(["one", "two", "three"])
    assert found[3] == found[0]


def test_a_caption_that_is_too_long_is_cut_and_closed(processor):
    example = processor.example(sample("a very long caption"))
    assert example.cut
    assert len(example.ids) == MOST
    assert example.ids[-1] == processor.tokenizer.special("<eos>")
    processor.overflow = "skip"
    with pytest.raises(InputError, match=r"^text_long: "):
        processor.example(sample("a very long caption"))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (sample(turns=(Turn("assistant", ("a dog",)),), media=()), "media_missing: "),
        (sample("a dog", "red", "blue"), "media_many: 2 pictures"),
        (sample("  "), "text_empty: "),
        (sample(turns=(Turn("user", (0, "what")),)), "text_empty: "),
    ],
    ids=["no picture", "two pictures", "blank caption", "no answer"],
)
def test_what_is_no_pair_is_skipped_with_its_reason(processor, wrong, reason):
    with pytest.raises(InputError, match=f"^{reason}"):
        processor.example(wrong)


def test_a_batch_has_a_row_and_a_view_for_each_pair(processor):
    examples = [processor.example(sample(text, colour)) for text, colour in (("cat", "red"), ("a dog", "blue"))]
    batch = processor.collate(examples)
    assert batch.ids.shape == (2, 7)
    assert len(batch.views) == 2
    assert (batch.segment != PADDING).sum(1).tolist() == [5, 7]
    assert torch.equal(batch.views[1], examples[1].views[0])
    with pytest.raises(InputError, match=r"hardware\.pack"):
        processor.collate(examples, pack=True)
