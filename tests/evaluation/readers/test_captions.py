"""Flickr8k's test captions, in its authors' files and in the hub's copy."""

from __future__ import annotations

from pathlib import Path

from tests.evaluation.readers.written import cell, headline, png, put, put_parquet, read, refused
from vlm.evaluation.readers.flickr8k import COLUMNS, Flickr8k, Flickr8kHub

NAMES = ("1_a.jpg", "2_b.jpg")


def authors(path: Path, table: str = "Flickr8k.token.txt") -> Flickr8k:
    """Two test pictures and one of another split, five captions each."""
    every = [(name, f"A dog , number {k} .") for name in (*NAMES, "3_c.jpg") for k in range(5)]
    if table.endswith("token.txt"):
        lines = "".join(f"{name}#{number % 5}\t{text}\n" for number, (name, text) in enumerate(every))
    else:
        lines = "image,caption\n" + "".join(f'{name},"{text}"\n' for name, text in every)
    put(path / table, lines)
    put(path / "Flickr_8k.testImages.txt", "\n".join(NAMES) + "\n")
    for number, name in enumerate(NAMES):
        put(path / "Flicker8k_Dataset" / name, png(number))
    return Flickr8k(str(path), table, expected={"pictures": 2, "captions": 10})


def test_a_test_picture_has_its_five_captions_as_published(tmp_path: Path) -> None:
    for table in ("Flickr8k.token.txt", "captions.txt"):
        first, second = read(authors(tmp_path, table))
        assert (first.id, first.group) == ("1_a.jpg", "1_a.jpg")
        assert first.reference == [f"A dog , number {k} ." for k in range(5)]
        assert second.pictures[0].read() == png(1)


def test_lists_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    authors(tmp_path)
    refused(Flickr8k(str(tmp_path), expected={"pictures": 1000}), "2 pictures, but 1,000 are published")
    put(tmp_path / "Flickr_8k.testImages.txt", "1_a.jpg\n9_z.jpg\n")
    refused(Flickr8k(str(tmp_path)), "has no caption of 9_z.jpg and 0 others")
    put(tmp_path / "Flickr_8k.testImages.txt", "3_c.jpg")
    refused(Flickr8k(str(tmp_path)), "1 of 1 pictures are not there")
    put(tmp_path / "Flickr_8k.testImages.txt", "1_a.jpg 1_a.jpg")
    refused(Flickr8k(str(tmp_path)), "names a picture twice")


def test_tables_of_another_form_are_refused(tmp_path: Path) -> None:
    authors(tmp_path)
    put(tmp_path / "Flickr8k.token.txt", "1_a.jpg\tA dog\n")
    refused(Flickr8k(str(tmp_path)), "row 1: .* is not name.jpg#k, TAB, caption")
    put(tmp_path / "captions.txt", "1_a.jpg,A dog\n")
    refused(Flickr8k(str(tmp_path), "captions.txt"), "row 1 is .*; image,caption is expected")


def test_the_hubs_copy_has_a_row_a_picture(tmp_path: Path) -> None:
    rows = [{"image": cell(n), **{name: f"{name} of {n}" for name in COLUMNS}} for n in range(3)]
    put_parquet(tmp_path / "data/test-00000-of-00001.parquet", rows)
    questions = read(Flickr8kHub(str(tmp_path), expected={"pictures": 3, "captions": 15}))
    assert questions[2].reference == [f"caption_{k} of 2" for k in range(5)]
    assert questions[2].pictures[0].read() == png(2)
    refused(Flickr8kHub(str(tmp_path), expected={"pictures": 1000}), "3 pictures, but 1,000 are published")


def test_a_gold_caption_scores_above_the_constant(tmp_path: Path) -> None:
    reader = authors(tmp_path)
    texts = "".join(f"{name}#{k}\tA {name[2]} thing {'runs ' * (k + 2)}.\n" for name in NAMES for k in range(5))
    put(tmp_path / "Flickr8k.token.txt", texts)
    constant = headline(reader, "caption", lambda question: "a dog")
    assert headline(reader, "caption", lambda question: question.reference[0]) > constant
