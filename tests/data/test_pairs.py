"""Preference rows: which are refused by name, that both answers see the same, and which tokens count as changed."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch

from tests import hf_folder
from tests.data.test_branches import processor, rows_of
from tests.data.test_rows import png
from vlm.contracts.batch import IGNORE, VISUAL
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Sample, Turn
from vlm.contracts.vision import FixedCount, VisionSpec
from vlm.data.chat_template import ChatTemplate
from vlm.data.loader import Collate, Reading, Rows
from vlm.data.order import Mix, Source
from vlm.data.pairs import changed_words, token_spans
from vlm.data.processor import Processor
from vlm.data.tokens import FolderTokenizer
from vlm.data.views import Resize

WORDS = [
    "a",
    "red",
    "reddish",
    "kite",
    "kites",
    "don't",
    "does",
    "über",
    "Tür",
    "two",
    "books.",
    "on",
    "the,",
    "🙂",
    "it\u2019s",
]


def pair(chosen: str = "bc", rejected: str | None = "bd", pictures: int = 1, before: tuple[str, ...] = ()) -> Sample:
    shown = tuple(range(pictures))
    turns = [Turn("user", (*shown, "a?"))]
    for answer in before:
        turns += [Turn("assistant", (answer,)), Turn("user", ("c?",))]
    return Sample("k", (*turns, Turn("assistant", (chosen,))), (png(),) * pictures, rejected=rejected)


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (pair(rejected=None), "pair_missing"),
        (pair("b c", " b  c"), "pair_equal"),
        (pair(pictures=0), "media_missing"),
        (pair(rejected=""), "text_empty"),
    ],
)
def test_a_row_that_is_no_pair_is_refused_by_name(sample, reason):
    with pytest.raises(InputError, match=f"^{reason}: "):
        processor().example(sample, pair=True)


def test_a_model_without_encoder_takes_pairs_without_pictures():
    made = processor()
    made.spec = VisionSpec(4, FixedCount(0))
    assert made.example(pair(pictures=0), pair=True).parent == (-1, 0, 0)


def test_answers_that_do_not_fit_are_cut_or_left_out_as_asked_and_refused_where_nothing_differs_any_more():
    long = pair("b" * 12, "bd" + "b" * 12)
    cut = processor(positions=12).example(long, pair=True)
    assert cut.cut
    end = processor().tokenizer.special("<eos>")
    for ids, labels, positions in rows_of(cut):
        assert (len(ids), ids[-1], labels[-1], positions[-1]) == (12, end, end, 11)
    with pytest.raises(InputError, match=r"^text_long: "):
        processor(positions=12, overflow="skip").example(long, pair=True)
    same_beginning = pair("b" * 12 + "c", "b" * 12 + "d")
    with pytest.raises(InputError, match=r"^pair_equal: .* as far as they fit; raise llm\.template\.max_tokens"):
        processor(positions=12).example(same_beginning, pair=True)


def test_a_row_that_cannot_be_used_is_counted_under_its_reason_and_replaced():
    class Two(list):
        name, start, augment = "two", 0, True

    rows = Rows(
        [Two([pair(rejected=None), pair()])],  # type: ignore[list-item]
        Mix([Source(2, 2)], seed=0, shuffle=False, interleave=False),
        processor(),
        Reading([], False, 0.0, seed=3, pairs=True),
    )
    item = rows[0]
    assert next((skip.row, skip.reason) for skip in item.skipped) == (0, "pair_missing")
    assert item.example is not None
    loaded = Collate(processor(), pack=False)([item, rows[1]])
    assert loaded.batch.pairs
    assert len(loaded.skipped) >= 1


def test_both_answers_see_the_same_views_whatever_the_seed():
    made = processor()
    made.views = Resize(14, [0.5] * 3, [0.5] * 3, crop_least=0.2, flip=0.5)
    one, other = (made.example(pair(), seed=seed, pair=True) for seed in (1, 1))
    assert len(one.views) == 1
    assert (one.ids == VISUAL).sum() == 3  # one slot, in the prefix of both
    assert one.slots == (0,)
    assert torch.equal(one.views[0], other.views[0])


def test_only_the_last_answer_carries_loss_and_earlier_ones_are_part_of_the_prefix():
    example = processor(max_tokens=40).example(pair(before=("ef",)), pair=True)
    assert example.parent == (-1, 0, 0)
    end = processor().tokenizer.special("<eos>")
    spelled = [[label for label in labels if label != IGNORE] for _, labels, _ in rows_of(example)]
    encode = processor().tokenizer.encode
    assert spelled == [[*encode("bc"), end], [*encode("bd"), end]]
    everything = processor(max_tokens=40).example(pair(before=("ef",)), all_text=True, pair=True)
    assert torch.equal(everything.labels, example.labels)


def test_a_batch_of_pairs_says_so_and_where_answers_differ():
    made = processor()
    batch = made.collate([made.example(pair("b c", "b d"), pair=True), made.example(pair("c", "def"), pair=True)])
    assert batch.pairs
    assert batch.changed is not None
    assert batch.changed.shape == batch.ids.shape
    assert not batch.changed[batch.labels == IGNORE].any()
    spelled = [
        made.tokenizer.decode(batch.ids[(batch.segment == segment) & batch.changed].tolist())
        for segment in range(len(batch.parent))
    ]
    assert spelled == ["", "c", "d", "", "c", "def"]
    packed = made.collate([made.example(pair("b c", "b d"), pair=True)] * 2, pack=True)
    assert packed.pairs
    assert packed.changed.shape == packed.ids.shape
    mixed = made.collate([made.example(pair(), pair=True), made.example(pair())])
    assert not mixed.pairs
    assert mixed.changed is None


@pytest.fixture(scope="module", params=["byte_level", "sentence_pieces"])
def folder(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    hf_folder.write_tokenizer(place, hf_folder.INST, getattr(hf_folder, request.param)())
    return str(place)


def test_tokens_stand_where_their_characters_do_also_where_a_character_has_several(folder):
    tokenizer = FolderTokenizer(folder)
    text = "a red kite 🙂 über it\u2019s"
    ids = tokenizer.encode(text)
    spans = token_spans(ids, tokenizer.decode)
    whole = tokenizer.decode(ids)
    assert len(spans) == len(ids)
    assert spans[-1][1] == len(whole)
    face = whole.index("🙂")
    assert sum(begin <= face < end for begin, end in spans) > 1
    for id, (begin, end) in zip(ids, spans, strict=True):
        if "\ufffd" not in tokenizer.decode([id]):
            assert whole[begin:end].strip() == tokenizer.decode([id]).strip()


def test_changed_tokens_cover_the_changed_characters_and_each_touches_one(folder):
    """The prepared spans (meta.diff_chosen, meta.diff_rejected) are those of `changed_words`."""
    tokenizer = FolderTokenizer(folder)
    made = Processor(
        Resize(14, [0.5] * 3, [0.5] * 3), tokenizer, ChatTemplate(folder, 400, "2025-01-01"),
        VisionSpec(4, FixedCount(3)), positions=512,
    )  # fmt: skip
    draw = Random(0)
    for _ in range(60):
        chosen = [draw.choice(WORDS) for _ in range(draw.randint(1, 12))]
        rejected = list(chosen)
        for _ in range(draw.randint(1, 3)):
            rejected[draw.randrange(len(rejected))] = draw.choice(WORDS)
        texts = [" ".join(words) for words in (chosen, rejected)]
        if texts[0] == texts[1]:
            continue
        example = made.example(replace(pair(), turns=pair(texts[0]).turns, rejected=texts[1]), pair=True)
        for text, spans, segment in zip(texts, changed_words(*texts), (-2, -1), strict=True):
            place = example.segment == len(example.parent) + segment
            ids = example.ids[place & (example.labels != IGNORE)].tolist()
            marks = example.changed[place & (example.labels != IGNORE)].tolist()
            said = tokenizer.decode(ids)
            shift = len(said) - len(text)
            assert said.strip() == text
            places = [(b - shift, e - shift) for b, e in token_spans(ids, tokenizer.decode)]
            marked = [set(range(*place)) for mark, place in zip(marks, places, strict=True) if mark]
            covered = {at for begin, end in spans for at in range(begin, end)}
            assert covered <= set().union(*marked)
            assert all(own & covered for own in marked)
