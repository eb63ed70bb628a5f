"""Galleries of captioned pictures, and Flickr8k as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.asked import drawn, picture
from tests.evaluation.readers.written import put, read, refused
from tests.evaluation.towers import caption, captioned
from vlm.contracts.benchmark import Picture
from vlm.evaluation.readers.galleries import Flickr8kGallery, Galleries, Pair, grouped


def twenty(path: Path) -> str:
    """A prepared split of twenty pictures with fifteen captions."""
    return str(captioned(path / "set/val", [caption(number % 15) for number in range(20)]))


def flickr8k(path: Path) -> Flickr8kGallery:
    """Three pictures with five captions each, in the authors' files."""
    names = [f"{number}.jpg" for number in range(3)]
    for number, name in enumerate(names):
        put(path / "Flicker8k_Dataset" / name, drawn(number))
    table = [f"{name}#{n}\t{caption(5 * number + n)}" for number, name in enumerate(names) for n in range(5)]
    put(path / "Flickr8k.token.txt", "\n".join(table))
    put(path / "Flickr_8k.testImages.txt", "\n".join(names))
    return Flickr8kGallery(str(path), expected={"pictures": 3, "captions": 15})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return twenty(tmp_path_factory.mktemp("data"))


def test_a_gallery_holds_different_pictures_with_different_captions_and_no_picture_is_in_two(folder):
    questions = read(Galleries(folder, 6, {"galleries": 3, "questions": 36}))
    assert [question.group for question in questions] == [f"gallery {n}" for n in range(3) for _ in range(12)]
    seen = []
    for number in range(3):
        own = questions[12 * number : 12 * number + 12]
        by_picture, by_text = own[:6], own[6:]
        texts, pictures = by_picture[0].options, [one.id for one in by_text[0].pictures]
        assert len(set(texts)) == len(set(pictures)) == 6
        seen += pictures
        for place, (one, other) in enumerate(zip(by_picture, by_text, strict=True)):
            assert one.reference == {"direction": "image_to_text", "gallery": 6, "right": [place]}
            assert other.reference == {"direction": "text_to_image", "gallery": 6, "right": [place]}
            assert (one.text, other.text) == ("", texts[place])
            assert [shown.id for shown in one.pictures] == [pictures[place]]
            assert one.id.removesuffix("/image_to_text") == other.id.removesuffix("/text_to_image")
    assert len(set(seen)) == len(seen) == 18


def test_galleries_go_by_the_pictures_and_not_by_the_order_of_the_files():
    pairs = [Pair(str(n), picture(n), (caption(n),)) for n in range(16)]
    found = [[pair.id for pair in gallery] for gallery in grouped(pairs, 5)]
    assert len(found) == 3
    assert [[pair.id for pair in gallery] for gallery in grouped(pairs[::-1], 5)] == found


def test_captions_that_differ_in_case_or_blanks_are_equal_and_so_are_equal_pictures():
    texts = [("a boat",), ("A  boat",), ("a hill",)]
    pairs = [Pair(str(n), picture(n), text) for n, text in enumerate(texts)]
    (gallery,) = grouped(pairs, 2)
    assert sorted(" ".join(pair.captions[0].lower().split()) for pair in gallery) == ["a boat", "a hill"]
    same = [Pair(str(n), Picture("one", lambda: b""), (caption(n),)) for n in range(4)]
    assert grouped(same, 2) == []


def test_what_fills_no_gallery_is_refused_and_other_numbers_than_expected_too(folder, tmp_path):
    refused(Galleries(folder, 64), "fills no gallery of 64 pictures with different captions; lower reader.gallery")
    refused(Galleries(folder, 6, {"galleries": 4}), "3 galleries, but 4 are published")
    refused(Galleries(str(tmp_path / "none/val"), 6), "does not exist; prepare it with")


def test_flickr8k_is_one_gallery_whose_pictures_have_five_captions_each(tmp_path: Path):
    questions = read(flickr8k(tmp_path))
    assert len(questions) == 3 + 15
    assert questions[1].reference == {"direction": "image_to_text", "gallery": 15, "right": [5, 6, 7, 8, 9]}
    assert questions[-1].reference == {"direction": "text_to_image", "gallery": 3, "right": [2]}
    assert [question.group for question in questions[:3]] == ["0.jpg", "1.jpg", "2.jpg"]
    assert questions[-1].id == "2.jpg/text_to_image/4"
