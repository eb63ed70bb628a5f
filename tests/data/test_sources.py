"""What a run reads: opened, mixed and described, or refused with the key to change."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.data.small_sets import small_set
from vlm.build import compose
from vlm.contracts.errors import ConfigError, InputError
from vlm.contracts.settings import DataSettings, LocalitySettings, SetUse
from vlm.data.order import Mix
from vlm.data.sources import Opened, changed, one_after_the_other, open_all, open_slices, texts, training_mix


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets of 40 and 10 rows, and one of them again under another name."""
    root = tmp_path_factory.mktemp("sets")
    small_set(root, "many", "train", 40)
    small_set(root, "few", "train", 10)
    small_set(root, "again", "train", 40, named="many")
    return root


def settings(train: dict[str, SetUse | None], **others: Any) -> DataSettings:
    keys: dict[str, Any] = {"validate": {}, "test": {}, "shuffle": True, "prompts": [""], "skip_budget": 0.001}
    return DataSettings(train=train, **keys | {"cache_gb": 0.0} | others)


def opened(root: Path, train: dict[str, SetUse | None], **others: Any) -> tuple[Opened, Mix]:
    chosen = settings(train, **others)
    data = open_all(str(root), chosen)
    return data, training_mix(data, chosen, seed=5)


def delivered(mix: Mix) -> Counter[int]:
    return Counter(mix.place(position).source for position in range(mix.length))


def test_sets_are_mixed_by_weight(root: Path) -> None:
    _, mix = opened(root, {"many": SetUse("train"), "few": SetUse("train", weight=2.0), "none": None})
    assert delivered(mix) == {0: 40, 1: 20}
    assert mix.shares() == [40 / 60, 20 / 60]


def test_a_share_is_a_part_of_all_rows_and_the_rest_goes_by_weight(root: Path) -> None:
    _, mix = opened(root, {"many": SetUse("train"), "few": SetUse("train", share=0.2)})
    assert delivered(mix) == {0: 40, 1: 10}
    _, mix = opened(root, {"many": SetUse("train", share=0.5), "few": SetUse("train", share=0.5)})
    assert delivered(mix) == {0: 25, 1: 25}


@pytest.mark.parametrize(
    ("first", "second", "message"), [(0.5, 0.6, "sum to 1.1, but must sum to 1"), (1.0, None, "sum to 1, .* below 1")]
)
def test_shares_that_leave_no_room_or_do_not_fill_are_refused(
    root: Path, first: float, second: float | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        opened(root, {"many": SetUse("train", share=first), "few": SetUse("train", share=second)})


def test_without_shuffling_sets_interleave_in_file_order(root: Path) -> None:
    _, mix = opened(root, {"many": SetUse("train", [0, 4]), "few": SetUse("train", [0, 2])}, shuffle=False)
    assert [(place.source, place.row) for place in map(mix.place, range(6))] == [
        (0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (0, 3),
    ]  # fmt: skip


def test_validation_reads_one_set_after_the_other(root: Path) -> None:
    slices = open_slices(str(root), {"few": SetUse("train", [7, 9]), "many": SetUse("train", [0, 2])})
    mix = one_after_the_other(slices)
    keys = [slices[place.source][place.row].key for place in map(mix.place, range(mix.length))]
    assert keys == ["few-0000000007", "few-0000000008", "many-0000000000", "many-0000000001"]


def test_locality_reads_rows_of_near_blocks_together(root: Path) -> None:
    data, _ = opened(root, {"many": SetUse("train")})
    (part,) = data.slices["train"]
    block = part.shards.row_bytes * 4 / 2**20  # type: ignore[union-attr]
    _, mix = opened(root, {"many": SetUse("train")}, locality=LocalitySettings(block, 2.5 * block))
    (source,) = mix.sources
    assert source.windows == (4, 2)
    assert sorted(mix.place(position).row for position in range(40)) == list(range(40))


def test_costs_of_a_slice_are_those_of_its_rows(root: Path) -> None:
    (part,) = open_slices(str(root), {"few": SetUse("train", [7, 9])})
    assert part.costs(1) == part.shards.costs(8)
    assert part.costs(0)[1:] == (1, 1, 6)  # type: ignore[index]


@pytest.mark.parametrize("rows", [[0, 41], [5, 5], [7, 3]])
def test_rows_that_a_set_does_not_have_are_refused(root: Path, rows: list[int]) -> None:
    with pytest.raises(InputError, match=r"many has 40 rows, but rows .*data.<use>.many.rows"):
        open_slices(str(root), {"many": SetUse("train", rows)})


@pytest.mark.parametrize("use", [SetUse(), SetUse("train", stream="a.tar", rows=[0, 5]), SetUse(stream="a.tar")])
def test_a_set_lies_in_one_place(root: Path, use: SetUse) -> None:
    with pytest.raises(InputError, match="many needs either `split`, or `stream` and `rows`"):
        open_slices(str(root), {"many": use})


def test_two_preparations_of_one_set_are_refused_with_both_directories(root: Path) -> None:
    with pytest.raises(InputError, match=r"many/train and .*again/train are both many/train: .* same keys"):
        open_all(str(root), settings({"many": SetUse("train"), "again": SetUse("train")}))
    open_all(str(root), settings({"many": SetUse("train")}, validate={"again": SetUse("train")}))


def test_one_directory_under_two_names_is_no_clash(root: Path) -> None:
    (root / "linked").symlink_to(root / "many")
    open_all(str(root), settings({"many": SetUse("train", [0, 9]), "linked": SetUse("train", [5, 20])}))


def test_a_stream_is_mixed_like_a_set_and_warned_of_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = f"{root}/many/train/*.tar"
    with caplog.at_level(logging.WARNING):
        data, mix = opened(
            root,
            {"web": SetUse(stream=address, rows=[10, 30]), "few": SetUse("train")},
            validate={"web": SetUse(stream=address, rows=[0, 10])},
        )
    assert delivered(mix) == {0: 20, 1: 10}
    part = data.slices["train"][0]
    keys = {part[place.row].key for place in map(mix.place, range(mix.length)) if place.source == 0}
    assert keys == {f"many-{row:010d}" for row in range(10, 30)}
    assert [slice.costs(0) is None for slice in data.slices["train"]] == [True, False]
    (said,) = caplog.messages
    assert said.startswith("read as a stream: web; what that cannot promise: rows are shuffled within blocks of 256")
    entry = data.record["sets"]["train"]["web"]
    assert (entry["address"], entry["rows"]) == (address, 20)
    assert "reads the stream again from its beginning" in entry["promises"]


def test_a_set_prepared_anew_or_another_address_counts_as_changed(root: Path) -> None:
    address = f"{root}/many/train/*.tar"
    sets = {"few": SetUse("train"), "web": SetUse(stream=address, rows=[0, 9])}
    before = open_all(str(root), settings(sets)).record
    assert changed(before, before) == []
    moved = {**sets, "web": SetUse(stream=f"{root}/many/train/shard-*.tar", rows=[0, 9])}
    assert changed(before, open_all(str(root), settings(moved)).record) == ["train/web"]
    assert changed(before, open_all(str(root), settings({"many": SetUse("train")})).record) == [
        "train/few", "train/many", "train/web",
    ]  # fmt: skip


def test_texts_for_a_tokenizer_are_those_of_all_rows(root: Path) -> None:
    data, _ = opened(root, {"few": SetUse("train", [2, 4])})
    assert list(texts(data.slices["train"])) == ["row 2", "row 3"]


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (
            ["data.train.mnist.share=1", "data.train.mnist.weight=2"],
            "data.train.mnist.share",
            "not both; leave one out",
        ),
        (["data.train.mnist.share=0"], "data.train.mnist.share", "must be a number > 0 and <= 1"),
        (["data.train.mnist.share=0.5"], "data.train", "the shares sum to 0.5, but must sum to 1"),
        (
            ["data.train.mnist.share=1", "data.train.easy={split: train}"],
            "data.train",
            "sum to 1, but must sum to below 1",
        ),
        (["data.validate.mnist.share=1"], "data.validate.mnist.share", "only training sets are mixed"),
        (["data.train.web={stream: a.tar}"], "data.train.web.rows", "a stream does not tell its length"),
        (["data.train.web={rows: [0, 9]}"], "data.train.web", "give either `split` .* or `stream`"),
        (["data.train.mnist.stream=a.tar"], "data.train.mnist", "give either `split` .* or `stream`"),
        (["data.locality={block_mb: 8, window_mb: 4}"], "data.locality.window_mb", "4 is smaller than block_mb"),
        (["data.locality={block_mb: 0, window_mb: 4}"], "data.locality.block_mb", "must be a number > 0"),
    ],
)
def test_a_mix_that_cannot_be_is_refused_before_anything_is_opened(overrides: list[str], key: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose(["experiment=purevlm", *overrides])
    (problem,) = refused.value.problems
    assert problem.key == key
    assert re.search(words, problem.message)


def test_shares_streams_and_locality_are_taken_from_the_configuration() -> None:
    web = "data.train.web={stream: 'pipe:cat a.tar', rows: [0, 9], share: 0.25}"
    config = compose(["experiment=purevlm", web, "data.locality={block_mb: 8, window_mb: 512}"]).config
    assert config["data"]["train"]["web"]["share"] == 0.25
