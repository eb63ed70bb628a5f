"""The page of samples: everything of them is there, nothing of them is obeyed, and marked is what carries loss."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from data_prep.browse import BrowseSettings, main
from data_prep.checking.marked import folder_reader
from data_prep.command import run
from tests.data_prep.small_talks import HOSTILE, SAMPLES, talks, turn
from tests.hf_folder import write_tokenizer
from vlm.contracts.batch import IGNORE
from vlm.contracts.errors import InputError
from vlm.data.shards import ShardSet


class Page(HTMLParser):
    """tags: (name, attributes) in order.   texts: by the class of the element around them; marked: inside of <b>."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.articles: list[str] = []
        self.marked: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "article":
            self.articles.append("")
            self.marked.append([])
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "article" in self.open:
            self.articles[-1] += data
            if self.open[-1] == "b":
                self.marked[-1].append(data)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talks(tmp_path_factory.mktemp("browse"))


def browsed(directory: Path, **keys: Any) -> str:
    out = directory.parent / "page.html"
    assert main(BrowseSettings(directory, out=out, **keys)) == 0
    return out.read_text("utf-8")


@pytest.fixture(scope="module")
def text(split: Path) -> str:
    return browsed(split)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_every_sample_shows_its_turns_pictures_captions_and_origin(page: Page) -> None:
    assert len(page.articles) == len(SAMPLES)
    caption, chat, questions, pair, hostile, long = page.articles
    for words in ("a red kite over the sea", "one kite is up", "wind and a kite", "CC-BY-NC-4.0", "row 0", "id k0"):
        assert words in caption
    for words in ("system", "You look closely.", "picture 2", "Which is larger?", "It fills the picture."):
        assert words in chat
    assert "question 2" in questions
    assert {"chosen", "rejected"} <= set(re.findall(r"\w+", pair))
    assert '"index": 1' in hostile
    assert "and 6,000 more characters" in long
    images = [attributes["src"] for name, attributes in page.tags if name == "img"]
    assert len(images) == sum(sample["pictures"] for sample in SAMPLES)
    assert all(str(source).startswith("data:image/") for source in images)


def test_what_carries_loss_is_marked_and_nothing_else(page: Page) -> None:
    caption, chat, questions, pair, hostile, _ = page.marked
    assert chat == ["The first.<eos>", "It fills the picture.<eos>"]
    assert questions == ["Brown.<eos>", "Two.<eos>"]
    assert pair == ["A clock and two books stand there.<eos>", "A clock and a cat stand there, asleep.<eos>"]
    assert caption[0].removesuffix("<eos>") in SAMPLES[0]["meta"]["captions"]
    assert hostile[0].startswith(HOSTILE)


def test_the_words_that_differ_are_marked_in_both_answers(text: str) -> None:
    assert re.findall(r"<mark>(.*?)</mark>", text) == ["two books", "a cat", ", asleep"]


def test_long_answers_are_compared_as_far_as_they_are_shown(tmp_path: Path) -> None:
    long = {**SAMPLES[3], "chosen": [turn("assistant", "One kite. " + "sky " * 2000)]}
    long["rejected"] = [turn("assistant", "Two kites. " + "sky " * 2000)]
    page = browsed(talks(tmp_path, [long]))
    assert re.findall(r"<mark>(.*?)</mark>", page) == ["One kite", "Two kites"]
    assert "and 4,010 more characters" in page
    assert "and 4,011 more characters" in page


def test_texts_of_the_data_stay_texts(text: str, page: Page) -> None:
    assert "<script" not in text.lower().replace("&lt;script", "")
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object")]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert HOSTILE in page.articles[4]
    assert page.open == []


def test_nothing_outside_the_page_is_named(text: str, page: Page) -> None:
    assert not [tag for tag, attributes in page.tags if "href" in attributes]
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|https?://", text)


def test_the_summary_tells_counts_skips_licences_and_overlap(text: str) -> None:
    plain = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    for words in (
        "13 rows in = 6 samples + 6 skipped + 1 joined to another's sample",
        "text_empty: 3",
        "media_missing: 1 (0.07 % of the source, 5 % allowed)",
        "noncommercial not for commercial use (CC-BY-NC-4.0)",
        "pope/test: 2 rows removed",
        "python -m data_prep.prepare source=talks from=DIR",
        "≤ 64 1 ≤ 128 1 ≤ 448 2 ≤ 1024 2 more 1",
    ):
        assert words in plain


def test_the_marks_are_the_labels_of_the_real_template(split: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    write_tokenizer(folder)
    text = browsed(split, tokenizer=folder)
    assert f"tokenizer and chat template of {folder.name}" in text
    reader, shards = folder_reader(folder), ShardSet(split)
    for row, article in enumerate(Page(text).marked[:5]):
        sample = shards[row]
        reading = reader.read(sample)
        marked = [one.text for segment in reading.segments for one in segment.stretches if one.kind == "loss"]
        assert article == marked
        assert reading.loss == sum(
            one.tokens for segment in reading.segments for one in segment.stretches if one.kind == "loss"
        )
    example = reader.processor.example(shards[1])
    kept = [id for id, label in zip(example.ids.tolist(), example.labels.tolist(), strict=True) if label != IGNORE]
    assert reader.read(shards[1]).loss == len(kept)


def test_the_same_seed_draws_the_same_samples_and_another_one_others(split: Path) -> None:
    keys = [re.findall(r"<h3>(.*?)</h3>", browsed(split, samples=3, seed=seed)) for seed in (1, 1, 2)]
    assert keys[0] == keys[1] != keys[2]
    assert len(keys[0]) == 3


def test_a_damaged_sample_and_picture_are_told_in_their_place(tmp_path: Path) -> None:
    home = talks(tmp_path)
    shard = home / "shard-000000.tar"
    data = shard.read_bytes()
    begin = data.index(b"talks-0000000002.png")
    shard.write_bytes(data[: begin + 600] + b"XX" + data[begin + 602 :])
    article = Page(browsed(home)).articles[2]
    assert "the bytes of talks-0000000002.png changed after they were written" in article


def test_a_whole_folder_of_sets_is_one_page_beside_them(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = split.parents[1]
    assert main(BrowseSettings(root, samples=1)) == 0
    assert capsys.readouterr().out.strip() == str(root / "browse.html")
    assert run("About.", BrowseSettings, main, [f"dir={split}", "samples=1"]) == 0
    assert capsys.readouterr().out.strip() == str(split.parent / "browse.html")


def test_a_manifest_of_few_keys_is_enough(tmp_path: Path) -> None:
    home = talks(tmp_path, SAMPLES[:1])
    manifest = json.loads((home / "manifest.json").read_text())
    needed = ("format", "set", "split", "shards", "index", "license")
    few = {key: manifest[key] for key in needed} | {"counts": {"samples_out": 1}}
    (home / "manifest.json").write_text(json.dumps(few))
    assert "a red kite" in browsed(home)


def test_what_cannot_be_read_is_refused(split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("About.", BrowseSettings, main, [f"dir={tmp_path}"]) == 2
    with pytest.raises(InputError, match=r"tokenizer: .* has no tokenizer.json"):
        main(BrowseSettings(split, tokenizer=tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="name another file with out=FILE"):
        main(BrowseSettings(split, out=tmp_path / "file" / "page.html"))
