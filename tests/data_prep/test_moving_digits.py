"""Made motion of real digits: what is asked, what the frames show, and that no handwriting crosses a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.sets.mnist import NAMES
from tests.data_prep.conftest import verify_shards
from vlm.contracts.errors import ConfigError, InputError
from vlm.data.clips import choose, frames_of
from vlm.data.shards import ShardSet

FEW = ["++source.reader.checksums=null", "++source.reader.clips={train: 320, val: 32, test: 32}", "against=[]"]
FEW += ["++source.pictures.format=png"]


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """IDX files whose pictures show a square as large as their label, in a grey that tells the split."""
    home = tmp_path / "mnist"
    home.mkdir()
    for name, count in (("train", 400), ("t10k", 100)):
        labels = (np.arange(count) * 7 + np.arange(count) // 10) % 10
        pixels = np.zeros((count, 28, 28), np.uint8)
        for number, label in enumerate(labels):
            held_out = name == "train" and number % 10 == 0
            pixels[number, 6 : 8 + label, 6:20] = 200 if name == "t10k" else 150 if held_out else 100
        header = np.array([2051, count, 28, 28], ">u4").tobytes()
        (home / f"{name}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        (home / f"{name}-labels-idx1-ubyte").write_bytes(
            np.array([2049, count], ">u4").tobytes() + bytes(labels.tolist())
        )
    return home


@pytest.fixture
def made(prepare: Callable, digits: Path, tmp_path: Path) -> dict[str, ShardSet]:
    prepare("moving_digits", digits, *FEW)
    found = {split: tmp_path / "out" / "moving_digits" / split for split in ("train", "val", "test")}
    assert all(verify_shards(folder) == [] for folder in found.values())
    return {split: ShardSet(folder) for split, folder in found.items()}


def clips(shards: ShardSet) -> list[tuple[Any, str, np.ndarray]]:
    """meta, answer and frames [8, 112, 112] of each."""
    rows = (shards[number] for number in range(len(shards)))
    return [
        (row.meta, str(row.turns[1].parts[0]), np.stack(frames_of(row.media[0], row.key, 64).frames)) for row in rows
    ]


def cell_of(frame: np.ndarray, cell: list[int]) -> np.ndarray:
    row, column = cell
    return frame[28 * row : 28 * (row + 1), 28 * column : 28 * (column + 1)]


def test_the_mark_stands_alone_then_digits_stand_everywhere_and_the_answer_is_the_one_at_the_mark(
    made: dict[str, ShardSet],
) -> None:
    for meta, answer, frames in clips(made["train"])[:60]:
        assert frames.shape == (8, 112, 112)
        for frame in frames[:2]:
            assert frame.sum() == cell_of(frame, meta["cell"]).sum() > 0
        for frame in frames[2:]:
            assert all(cell_of(frame, [row, column]).any() for row in range(4) for column in range(4))
        height = int(cell_of(frames[-1], meta["cell"]).any(1).sum())
        right = "top" if meta["cell"][0] < 2 else "bottom", "left" if meta["cell"][1] < 2 else "right"
        assert answer == (NAMES[height - 2] if meta["type"] == "digit" else " ".join(right))


def test_every_digit_wanders_and_stays_whole(made: dict[str, ShardSet]) -> None:
    _, _, frames = clips(made["train"])[0]
    assert all((one != two).any() for one, two in pairwise(frames[2:]))
    assert len({cell_of(frame, [1, 1]).sum() for frame in frames[2:]}) == 1


def test_digits_and_places_of_the_answers_are_balanced(made: dict[str, ShardSet]) -> None:
    found = clips(made["train"])
    assert set(Counter(tuple(meta["cell"]) for meta, _, _ in found).values()) == {20}
    assert 0.7 < sum(meta["type"] == "digit" for meta, _, _ in found) / len(found) < 0.9
    told = Counter(int(cell_of(frames[-1], meta["cell"]).any(1).sum()) for meta, _, frames in found)
    assert set(told.values()) == {32}


def test_no_handwritten_digit_stands_in_two_splits(made: dict[str, ShardSet]) -> None:
    for split, grey in (("train", 100), ("val", 150), ("test", 200)):
        assert {int(frames[2:].max()) for _, _, frames in clips(made[split])} == {grey}


def test_half_of_the_frames_still_show_the_mark_and_a_quarter_does_not() -> None:
    assert [place for place in choose(8, 4) if place < 2] == [1]
    assert [place for place in choose(8, 2) if place < 2] == []


def test_the_same_seed_makes_the_same_clips_and_another_one_others(
    prepare: Callable, digits: Path, tmp_path: Path
) -> None:
    def sums(name: str, *words: str) -> list[str]:
        found = prepare("moving_digits", digits, *FEW, f"out={tmp_path / name}", *words)
        return [shard["sha256"] for manifest in found for shard in manifest["shards"]]

    assert sums("a") == sums("b")
    assert sums("a") != sums("c", "++source.reader.seed=1")


def test_it_says_that_it_is_made_and_its_test_split_is_for_scoring(made: dict[str, ShardSet]) -> None:
    assert made["test"].manifest["evaluation"]
    assert "by this project" in made["train"][0].meta["made"]
    assert made["train"].manifest["license"]["flags"] == {"share_alike": ["CC-BY-SA-3.0"]}


def test_a_split_that_lacks_a_digit_is_refused(prepare: Callable, digits: Path) -> None:
    labels = digits / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes().replace(b"\x09", b"\x08"))
    with pytest.raises(InputError, match="no picture of nine for its test split"):
        prepare("moving_digits", digits, *FEW)


@pytest.mark.parametrize(
    "word", ["grid=3", "frames=65", "frames=2", "cue_frames=0", "cue_frames=8", "asked={colour: 1}"]
)
def test_numbers_out_of_range_are_refused(prepare: Callable, digits: Path, word: str) -> None:
    with pytest.raises(ConfigError, match=r"source\.reader"):
        prepare("moving_digits", digits, *FEW, f"++source.reader.{word}")
