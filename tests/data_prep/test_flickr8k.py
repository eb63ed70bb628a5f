"""Flickr8k as it lies on the hub; its published files are tested with the other sets."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.data_prep.conftest import encoded, picture
from vlm.contracts.errors import InputError
from vlm.data.shards import ShardSet


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Four training pictures in two files, two for validation, two for the test."""
    home = tmp_path / "hub" / "data"
    home.mkdir(parents=True)
    names = [
        "train-00000-of-00002-ab",
        "train-00001-of-00002-cd",
        "validation-00000-of-00001-ef",
        "test-00000-of-00001-gh",
    ]
    for number, name in enumerate(names):
        images = [{"bytes": encoded(picture(10 * number + n), "JPEG"), "path": f"{number}{n}.jpg"} for n in range(2)]
        captions = {f"caption_{k}": [f"caption {k} of {number}{n} ." for n in range(2)] for k in range(5)}
        parquet.write_table(pa.table({"image": images, **captions}), home / f"{name}.parquet")
    return home.parent


def test_the_copy_on_the_hub_gives_the_same_samples(prepare, copy: Path, tmp_path: Path) -> None:
    manifests = prepare("flickr8k", copy)
    assert {m["split"]: m["counts"]["samples_out"] for m in manifests} == {"train": 4, "val": 2, "test": 2}
    assert len(manifests[0]["source"]) == 4
    sample = ShardSet(tmp_path / "out/flickr8k/train")[2]
    assert sample.media[0].data == encoded(picture(10), "JPEG")
    assert sample.turns[1].parts == ("caption 0 of 10 .",)
    assert sample.meta["captions"] == [f"caption {k} of 10 ." for k in range(5)]


def test_a_copy_without_a_split_or_with_other_columns_is_refused(prepare, copy: Path) -> None:
    path = copy / "data" / "test-00000-of-00001-gh.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.rename_columns(["image", "text", *table.column_names[2:]]), path)
    with pytest.raises(InputError, match="column 'caption_0' is missing; column 'text' is not known"):
        prepare("flickr8k", copy)
    path.unlink()
    with pytest.raises(InputError, match=r"has no test-\*.parquet"):
        prepare("flickr8k", copy)
