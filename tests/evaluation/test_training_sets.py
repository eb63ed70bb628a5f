"""What a run folder tells about training, back to the runs whose weights it began with."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.data_prep.small_splits import Entry, jpeg, photograph, split
from vlm.contracts.settings import DataSettings, SetUse
from vlm.data.sources import open_all
from vlm.evaluation.training_sets import TrainingSets, training_splits
from vlm.training.folder import RunFolder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name, first in (("boats", 0), ("ships", 10), ("rafts", 20)):
        prepared(tmp_path / "data", name, first)
    return tmp_path / "data"


def prepared(data: Path, name: str, first: int) -> Path:
    entries = [Entry([(jpeg(photograph(seed)), f"{seed}.jpg")]) for seed in range(first, first + 4)]
    return split(data / name / "train", entries)


def run(place: Path, data: Path, train: dict[str, tuple[int, int] | None], **config: Any) -> Path:
    """A run folder as training writes it."""
    uses = {name: SetUse(split="train", rows=list(rows) if rows else None) for name, rows in train.items()}
    held_out: dict[str, SetUse | None] = {"rafts": SetUse(split="train")}
    opened = open_all(str(data), DataSettings({**uses}, held_out, {}, True, [], 0.0, 0.0))
    written = {name: {"split": "train", "rows": list(rows) if rows else None} for name, rows in train.items()}
    place.mkdir(parents=True)
    whole = {"init_from": None, "weights": {}, "data": {"train": written, "prompts": []}, **config}
    RunFolder(place).describe(whole, [], opened.record)
    (place / "model").mkdir()
    (place / "model" / "config.json").write_text("{}")
    return place


def test_the_training_sets_of_a_run_are_told_with_the_rows_it_read(data: Path, tmp_path: Path) -> None:
    folder = run(tmp_path / "runs/one", data, {"boats": (1, 3), "ships": None})
    expected = TrainingSets(((data / "boats/train", (1, 3)), (data / "ships/train", None)), ())
    assert training_splits(folder) == expected
    assert training_splits(folder / "model") == expected


def test_a_saved_model_alone_is_unknown(data: Path, tmp_path: Path) -> None:
    model = run(tmp_path / "runs/one", data, {"boats": None}) / "model"
    shutil.move(model, tmp_path / "mine")
    found = training_splits(tmp_path / "mine")
    assert found.splits == ()
    (told,) = found.unknown
    assert (
        told == f"{tmp_path / 'mine'} is a saved model without its run folder, so what it was trained on is not known"
    )


def test_a_set_that_vanished_is_unknown_and_the_others_are_known(data: Path, tmp_path: Path) -> None:
    folder = run(tmp_path / "runs/one", data, {"boats": None, "ships": None})
    shutil.rmtree(data / "boats")
    found = training_splits(folder)
    assert found.splits == ((data / "ships/train", None),)
    assert found.unknown == (f"{folder}: what boats held is not known: {data}/boats/train is not there any more",)


def test_a_set_that_was_prepared_anew_is_unknown(data: Path, tmp_path: Path) -> None:
    folder = run(tmp_path / "runs/one", data, {"boats": None})
    shutil.rmtree(data / "boats")
    prepared(data, "boats", 2)
    found = training_splits(folder)
    assert found.splits == ()
    assert found.unknown == (f"{folder}: what boats held is not known: {data}/boats/train was prepared anew since",)


def test_a_set_that_is_damaged_is_unknown(data: Path, tmp_path: Path) -> None:
    folder = run(tmp_path / "runs/one", data, {"boats": None})
    (data / "boats/train/index.npy").unlink()
    found = training_splits(folder)
    assert found.splits == ()
    assert "index.npy is missing but the manifest says" in found.unknown[0]


def test_sets_that_moved_are_found_where_they_lie_now(data: Path, tmp_path: Path) -> None:
    folder = run(tmp_path / "runs/one", data, {"boats": (0, 2)})
    shutil.move(data, tmp_path / "elsewhere")
    assert training_splits(folder).splits == ()
    moved = tmp_path / "elsewhere"
    assert training_splits(folder, moved) == TrainingSets(((moved / "boats/train", (0, 2)),), ())
    shutil.rmtree(moved / "boats")
    prepared(moved, "boats", 2)
    assert "elsewhere/boats/train was prepared anew since" in training_splits(folder, moved).unknown[0]


def test_earlier_phases_count(data: Path, tmp_path: Path) -> None:
    first = run(tmp_path / "runs/first", data, {"boats": (0, 2)})
    second = run(tmp_path / "runs/second", data, {"boats": (0, 2), "rafts": None}, init_from=str(first / "model"))
    third = run(tmp_path / "runs/third", data, {"ships": None}, weights={"encoder": str(second), "llm": None})
    boats, ships, rafts = (data / name / "train" for name in ("boats", "ships", "rafts"))
    assert training_splits(third) == TrainingSets(((ships, None), (boats, (0, 2)), (rafts, None)), ())
    shutil.rmtree(first)
    gone = f"{first / 'model'} is not there any more, so what it was trained on is not known"
    assert training_splits(third).unknown == (gone,)
    assert len(training_splits(third).splits) == 3


def test_a_run_that_gives_no_part_does_not_count(data: Path, tmp_path: Path) -> None:
    first = run(tmp_path / "runs/first", data, {"boats": None})
    other = run(tmp_path / "runs/other", data, {"ships": None})
    parts = dict.fromkeys(("encoder", "connector", "llm", "fusion"), str(other))
    last = run(tmp_path / "runs/last", data, {"rafts": None}, init_from=str(first), weights=parts)
    assert [folder.parent.name for folder, _ in training_splits(last).splits] == ["rafts", "ships"]
    stacked = {"llm": {"adapters": {"sft": {}}}}  # which only the first run can have given
    last = run(tmp_path / "runs/stacked", data, {"rafts": None}, init_from=str(first), weights=parts, **stacked)
    assert [folder.parent.name for folder, _ in training_splits(last).splits] == ["rafts", "ships", "boats"]


def test_of_two_towers_other_parts_count(data: Path, tmp_path: Path) -> None:
    first = run(tmp_path / "runs/first", data, {"boats": None})
    parts = dict.fromkeys(("encoder", "text"), str(run(tmp_path / "runs/other", data, {"ships": None})))
    for given, read in ((parts, ["rafts", "ships", "boats"]), (parts | {"joint": parts["text"]}, ["rafts", "ships"])):
        place = tmp_path / "runs" / f"last{len(given)}"
        last = run(place, data, {"rafts": None}, init_from=str(first), weights=given, text={})
        assert sorted(folder.parent.name for folder, _ in training_splits(last).splits) == sorted(read)


def test_weights_from_elsewhere_are_unknown(data: Path, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    folder = run(tmp_path / "runs/one", data, {"boats": None}, weights={"encoder": str(tmp_path / "foreign")})
    found = training_splits(folder)
    assert found.splits == ((data / "boats/train", None),)
    assert found.unknown[0].startswith(f"{tmp_path / 'foreign'} is a saved model without its run folder")


def test_a_stream_is_unknown(data: Path, tmp_path: Path) -> None:
    folder = run(tmp_path / "runs/one", data, {"boats": None})
    record = json.loads((folder / "data.json").read_text())
    record["sets"]["train"] = {"cc12m": {"address": "pipe:cat a.tar", "rows": 9, "promises": "", "license": None}}
    (folder / "data.json").write_text(json.dumps(record))
    assert training_splits(folder) == TrainingSets(
        (), (f"{folder}: cc12m was read as a stream from pipe:cat a.tar; what it held is not known any more",)
    )


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("data.json", "{", r"data.json does not say what the run read: Expecting"),
        ("data.json", '{"set": {}}', r"data.json does not say what the run read: sets: Field required"),
        ("config.yaml", "data: {train: {boats: {rows: many}}}", r"config.yaml does not say .*: data.train.boats.rows"),
        ("config.yaml", "{", r"config.yaml does not say which rows the run read: while parsing"),
        ("config.yaml", None, r"config.yaml is missing, so which rows"),
    ],
)
def test_a_damaged_run_folder_is_unknown(data: Path, tmp_path: Path, file: str, content: str | None, told: str) -> None:
    folder = run(tmp_path / "runs/one", data, {"boats": None})
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    found = training_splits(folder)
    assert found.splits == ()
    (sentence,) = found.unknown
    assert re.search(told, sentence), sentence
