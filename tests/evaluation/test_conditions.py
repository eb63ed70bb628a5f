"""Controls: the same questions with grey pictures, and with other questions' pictures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.asked import drawn, picture, question, settings
from vlm.contracts.errors import InputError
from vlm.evaluation.conditions import Blank, other_pictures, shuffled
from vlm.evaluation.prompts import ask

PICTURES = [(0,), (0,), (1,), (2,), (2, 3), (4,), ()]
QUESTIONS = [question(number, pictures=shown) for number, shown in enumerate(PICTURES)]


def test_a_blank_question_has_grey_pictures_of_the_same_size_and_the_same_prompt():
    asked = replace(question(1), pictures=(picture(0, (31, 17)), picture(1, (8, 40))))
    found = Blank()(asked)
    for grey, size in zip(found.pictures, ((31, 17), (8, 40)), strict=True):
        shown = Image.open(BytesIO(grey.read()))
        assert (shown.size, np.unique(np.asarray(shown)).tolist()) == (size, [128])
    assert ask(found, settings()).prompt == ask(asked, settings()).prompt
    assert (found.id, found.reference) == (asked.id, asked.reference)


def test_grey_pictures_of_one_size_are_one_picture():
    blank = Blank()
    first, other = blank(QUESTIONS[0]).pictures, blank(QUESTIONS[2]).pictures
    assert first[0].id == other[0].id != picture(0).id


def test_a_clip_or_a_damaged_picture_is_refused_by_name():
    with pytest.raises(InputError, match=r"0\.png"):
        Blank()(replace(question(1), pictures=(picture(0, read=lambda: b"no picture"),)))


def test_every_picture_becomes_another_one_and_the_same_for_all_questions_about_it():
    others = other_pictures(QUESTIONS, seed=0)
    assert set(others) == {f"{number}.png" for number in range(5)}
    assert all(name != other.id for name, other in others.items())
    assert {other.id for other in others.values()} == set(others)  # none is shown more often than another
    for asked in QUESTIONS:
        found = shuffled(asked, others)
        assert [one.id for one in found.pictures] == [others[one.id].id for one in asked.pictures]
        assert (found.id, found.text, found.reference) == (asked.id, asked.text, asked.reference)


def test_equal_files_under_other_names_are_the_same_picture():
    """Medical tables hold a picture once a row; one exchanged for its own copy would be no exchange."""
    held = [0, 0, 0, 1, 1, 2, 3]
    names = [picture(number, read=partial(drawn, look)) for number, look in enumerate(held)]
    asked = [replace(question(number), pictures=(shown,)) for number, shown in enumerate(names)]
    for seed in range(6):
        others = other_pictures(asked, seed)
        assert all(shown.read() != others[shown.id].read() for shown in names)
        assert {other.id for other in others.values()} == {shown.id for shown in names}


def test_where_most_files_are_equal_as_many_as_can_be_are_exchanged():
    names = [picture(number, read=partial(drawn, 0 if number < 4 else 1)) for number in range(5)]
    asked = [replace(question(number), pictures=(shown,)) for number, shown in enumerate(names)]
    others = other_pictures(asked, 0)
    assert sum(shown.read() != others[shown.id].read() for shown in names) == 2


def test_the_exchange_follows_the_seed_and_not_the_order_of_questions():
    def names(questions, seed):
        return {name: other.id for name, other in other_pictures(questions, seed).items()}

    assert names(QUESTIONS, 3) == names(QUESTIONS[::-1], 3)
    assert len({tuple(sorted(names(QUESTIONS, seed).items())) for seed in range(8)}) > 1


def test_a_single_picture_has_no_other():
    assert other_pictures([question(1)], 0)["0.png"].id == "0.png"
