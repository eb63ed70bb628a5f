"""Recognised text as help in a prompt; the real engine on drawn text."""

from __future__ import annotations

import json
import sys
import types
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.harnesses.environment import install, run
from vlm.contracts.errors import InputError
from vlm.evaluation.ocr import INSTALL, Recogniser, in_reading_order, recogniser, with_text

Texts = list[tuple[int, int, str]]


def drawn(texts: Texts, mode: str = "RGB") -> bytes:
    """A PNG of 640 x 240 with texts at (left, top), black on white."""
    picture = Image.new(mode, (640, 240), "white")
    font = ImageFont.load_default(size=32)
    for left, top, text in texts:
        ImageDraw.Draw(picture).text((left, top), text, fill="black", font=font)
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_lines_are_read_from_top_to_bottom_and_boxes_of_a_line_from_left_to_right() -> None:
    found = [((300, 12, 400, 40), "right"), ((0, 100, 90, 130), "below"), ((0, 10, 100, 40), "left")]
    assert in_reading_order(found) == "left right\nbelow"


def test_a_small_text_beside_a_large_one_stands_in_a_line_of_its_own_unless_their_middles_meet() -> None:
    large, small = (0, 0, 100, 100), (110, 2, 150, 14)
    assert in_reading_order([(large, "LARGE"), (small, "small")]) == "small\nLARGE"
    assert in_reading_order([(large, "LARGE"), ((110, 45, 150, 57), "small")]) == "LARGE small"


def test_recognised_text_stands_in_front_of_the_question_and_changes_nothing_where_there_is_none() -> None:
    assert with_text("What speed?", "LIMIT\n55") == "Text in the picture:\nLIMIT\n55\n\nWhat speed?"
    assert with_text("What speed?", " \n") == "What speed?"


def test_braces_in_a_text_are_text() -> None:
    assert with_text("{a}?", "{b}").endswith("{b}\n\n{a}?")


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_every_kind_of_picture_reaches_the_engine_as_rgb_bytes(mode: str) -> None:
    seen = []
    picture = Image.new("RGB", (20, 10), (255, 255, 255)).convert(mode)
    file = BytesIO()
    picture.save(file, "TIFF" if mode == "CMYK" else "PNG")
    Recogniser(lambda pixels: seen.append(pixels) or [], "")(file.getvalue())
    assert seen[0].shape == (10, 20, 3)
    assert seen[0].dtype == np.uint8


def test_lines_of_little_confidence_and_empty_ones_are_left_out() -> None:
    box = (0.0, 0.0, 10.0, 10.0)
    found = [(box, "unsure", 0.49), (box, "sure", 0.5), (box, "  ", 0.9)]
    assert Recogniser(lambda pixels: found, "")(drawn([])) == "sure"


def test_bytes_that_are_no_picture_are_an_error() -> None:
    with pytest.raises(InputError, match="media_undecodable"):
        Recogniser(lambda pixels: [], "")(b"no picture")


def test_an_unknown_engine_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"tesseract.*rapidocr, easyocr"):
        recogniser("tesseract")


@pytest.mark.parametrize("name", ["rapidocr", "easyocr"])
def test_an_engine_that_is_not_installed_says_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError) as refused:
        recogniser(name)
    assert INSTALL[name] in str(refused.value)


def test_rapidocr_without_its_models_is_refused_and_asks_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = types.ModuleType("rapidocr")
    package.__file__ = str(tmp_path / "__init__.py")
    monkeypatch.setitem(sys.modules, "rapidocr", package)
    with pytest.raises(InputError, match=r"should hold one .*its wheel brings the models"):
        recogniser("rapidocr")


def test_easyocr_without_its_models_is_refused_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def reader(languages: list[str], **settings: bool) -> None:
        given.update(settings)
        raise FileNotFoundError("Missing craft_mlt_25k.pth and downloads disabled")

    package = types.ModuleType("easyocr")
    package.Reader = reader  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "easyocr", package)
    with pytest.raises(InputError, match=r"craft_mlt_25k\.pth.*Nothing is downloaded here.*ocr=rapidocr"):
        recogniser("easyocr")
    assert given["download_enabled"] is False


READ = """
import json, sys
from pathlib import Path
from vlm.evaluation.ocr import recogniser
read = recogniser("rapidocr")
print(json.dumps([read.describe(), *(read(Path(name).read_bytes()) for name in sys.argv[1:])]))
"""


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(900)
def test_rapidocr_reads_drawn_text_with_nothing_but_its_wheel(tmp_path: Path) -> None:
    python = install(tmp_path / "venv", "rapidocr>=3.10,<4", "onnxruntime")
    pictures: dict[str, Texts] = {
        "EXIT 24\nSpeed limit 55": [(20, 20, "EXIT 24"), (20, 90, "Speed limit 55")],
        "left column right column\nTotal: $3.50": [
            (340, 24, "right column"), (20, 20, "left column"), (20, 120, "Total: $3.50"),
        ],
        "": [],
    }  # fmt: skip
    for number, texts in enumerate(pictures.values()):
        (tmp_path / f"{number}.png").write_bytes(drawn(texts))
    names = [tmp_path / f"{number}.png" for number in range(len(pictures))]
    described, *read = json.loads(run(python, "-c", READ, *names, cwd=tmp_path).splitlines()[-1])
    assert read == [*pictures]
    assert described.startswith("rapidocr 3.")
    assert "PP-OCR" in described
    assert "confidence 0.5" in described
