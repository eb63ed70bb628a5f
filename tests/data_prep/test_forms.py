"""Held-out questions in the benchmarks' own file forms: shapes on invented pictures."""

from __future__ import annotations

import hashlib
import json
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from data_prep.command import run
from data_prep.forms.__main__ import FormsSettings, main, package
from tests.data_prep.drawn import unpacked, wheel
from tests.data_prep.written_forms import FORMS, annotated, mme, pope, problems, written


def test_every_form_is_the_same_bytes_each_time_and_from_a_wheel_or_a_folder(tmp_path: Path) -> None:
    first = written(tmp_path / "a", wheel(tmp_path))
    second = written(tmp_path / "b", unpacked(tmp_path))
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_what_it_is_and_its_checksums_hold(tmp_path: Path, form: str) -> None:
    folder = written(tmp_path / "out", wheel(tmp_path), form) / form
    text = (folder / "README.md").read_text()
    assert "easy-vqa 1.0" in text
    assert "licence MIT" in text
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    sums = {name: digest for digest, name in lines}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files - {"SHA256SUMS"} == set(sums)
    assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for name, digest in sums.items())


def test_every_picture_that_a_form_names_is_there(tmp_path: Path) -> None:
    out = written(tmp_path / "out", wheel(tmp_path))
    rows = pope(out / "pope/coco_pope_random.json")
    named = [out / "pope/val2014" / row["image"] for row in rows]
    named += [out / f"scienceqa/images/test/{pid}" / row["image"] for pid, row in problems(out / "scienceqa").items()]
    named += [out / f"vqav2/val2014/COCO_val2014_{entry['image_id']:012d}.jpg" for _, entry in annotated(out)]
    for path in set(named):
        Image.open(path).load()
    Image.open(BytesIO(mme(out)[0]["image"]["bytes"])).load()


def test_the_rows_have_the_published_fields(tmp_path: Path) -> None:
    out = written(tmp_path / "out", wheel(tmp_path))
    assert set(pope(out / "pope/coco_pope_popular.json")[0]) == {"question_id", "image", "text", "label"}
    assert set(mme(out)[0]) == {"question_id", "image", "question", "answer", "category"}
    _, entry = next(annotated(out))
    assert set(entry) == {
        "question_id", "image_id", "question_type", "answer_type", "multiple_choice_answer", "answers",
    }  # fmt: skip
    assert [set(answer) for answer in entry["answers"]] == [{"answer", "answer_confidence", "answer_id"}] * 10
    assert set(problems(out / "scienceqa")["1"]) == {
        "question", "choices", "answer", "hint", "image", "task", "grade", "subject", "topic", "category", "skill",
        "lecture", "solution", "split",
    }  # fmt: skip
    splits = json.loads((out / "scienceqa/pid_splits.json").read_text())
    assert splits["test"] == list(problems(out / "scienceqa"))


def command(*words: str) -> int:
    return run("About.", FormsSettings, main, list(words))


def test_other_content_under_the_same_name_is_refused_and_left_alone(tmp_path: Path, capsys) -> None:
    place = wheel(tmp_path)
    words = [f"out={tmp_path / 'out'}", "forms=[pope]"]
    assert command(*words, f"from={place}") == 0
    first = capsys.readouterr().out
    assert json.loads(first)["rows"]["coco_pope_random.json"] == 12 * 6
    assert command(*words, f"from={place}") == 0
    assert capsys.readouterr().out == first
    assert command(*words, f"from={unpacked(tmp_path, test=6)}") == 2
    assert "is there with other content; remove it or name another folder" in capsys.readouterr().err
    assert len(pope(tmp_path / "out/pope/coco_pope_random.json")) == 72


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["forms=[pope]"], "out: missing"),
        (["out=x", "forms=[pop]"], "forms"),
        (["out=x", "from=/nowhere"], "holds neither easy_vqa-*.whl nor easy_vqa/data/"),
    ],
)
def test_mistakes_on_the_command_line_end_with_two(tmp_path: Path, monkeypatch, capsys, words, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(*words) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_the_package_is_the_one_that_the_source_pins() -> None:
    import yaml

    root = Path(__file__).resolve().parents[2]
    described = ("easy_vqa_captions", "easy_vqa_positions", "easy_vqa_described", "easy_vqa_flawed")
    for source in ("easy_vqa", *described, "pairs_small", "pairs_mixed"):
        pinned = yaml.safe_load((root / f"conf/source/{source}.yaml").read_text())["packages"]["data"]
        assert pinned == vars(package("easy-vqa"))
