"""Recognised text is kept a line a picture, of every part, and never read twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.evaluation.asked import picture
from tests.evaluation.commands import SHORT, lines, run, words
from vlm.evaluation import recognised
from vlm.evaluation.ocr import Recogniser
from vlm.evaluation.recognised import Recognised

READ: list[bytes] = []


class Counting(Recogniser):
    """Reads nothing but the number of bytes, and notes whom it was asked about."""

    def __call__(self, picture: bytes) -> str:
        READ.append(picture)
        return f"{len(picture)} bytes"


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    READ.clear()
    monkeypatch.setattr(recognised, "recogniser", lambda name: Counting(lambda pixels: [], f"{name} 1.0"))


def kept(file: Path) -> list[str]:
    return [json.loads(line)["picture"] for line in file.read_text().splitlines()]


def test_a_picture_is_read_once_also_by_the_next_command(tmp_path):
    file = tmp_path / "sheets" / "recognised-0.jsonl"
    first = Recognised("rapidocr", file)
    text = first([picture(0), picture(1)])
    assert text.count("bytes") == 2
    assert first([picture(0), picture(1)]) == Recognised("rapidocr", file)([picture(0), picture(1)]) == text
    assert (len(READ), kept(file)) == (2, ["0.png", "1.png"])


def test_what_other_parts_have_read_is_known(tmp_path):
    for part in range(3):
        Recognised("rapidocr", tmp_path / f"recognised-{part}.jsonl")([picture(part)])
    whole = Recognised("rapidocr", tmp_path / "recognised-0.jsonl")
    assert whole([picture(number) for number in range(3)]).count("bytes") == 3
    assert len(READ) == 3


def test_a_line_that_a_stop_cut_off_is_read_again_and_swallows_none(tmp_path):
    file = tmp_path / "recognised-0.jsonl"
    Recognised("rapidocr", file)([picture(0), picture(1)])
    file.write_bytes(file.read_bytes()[:-9])
    again = Recognised("rapidocr", file)
    again([picture(0), picture(1), picture(2)])
    assert (len(READ), kept(file)) == (4, ["0.png", "1.png", "2.png"])


def test_another_engine_or_version_reads_anew(tmp_path):
    Recognised("rapidocr", tmp_path / "recognised-0.jsonl")([picture(0)])
    Recognised("easyocr", tmp_path / "recognised-0.jsonl")([picture(0)])
    assert len(READ) == 2


def test_an_evaluation_shows_the_text_and_keeps_it_apart_from_one_without(model, data, tmp_path):
    for more in ([], ["ocr=rapidocr"]):
        code, _, told = run(*words(model, data, tmp_path, *SHORT, *more))
        assert code == 0, told
    shown = [line["prompt"] for line in lines(tmp_path) if "Text in the picture" in line["prompt"]]
    assert len(shown) == len(lines(tmp_path)) / 2 == 24
    assert len(READ) == 6  # six pictures, four questions each
    assert len(list((tmp_path / "sheets").glob("pope-*"))) == 2
