"""Text that an engine reads in a picture, as help in a prompt: an explicit setting, never mixed with results without.

Nothing is downloaded: rapidocr's models come with its wheel, easyocr's must be in its folder already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlm.contracts.errors import InputError
from vlm.data.pictures import decode

FORM = "Text in the picture:\n{text}\n\n{prompt}"
LEAST = 0.5  # confidence from which a line is kept
SAME_LINE = 0.5  # boxes share a line if their middles are closer than this share of the lower one's height
INSTALL = {
    "rapidocr": 'pip install "rapidocr>=3.10,<4" onnxruntime',
    "easyocr": 'pip install "easyocr>=1.7,<2"',
}

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
Read = Callable[[np.ndarray], list[tuple[Box, str, float]]]  # uint8 RGB [H, W, 3] -> boxes, texts, confidences


@dataclass(frozen=True)
class Recogniser:
    """An encoded picture -> its text: a line a line of the picture, from top to bottom, "" if there is none.

    Raises: PictureError for bytes that are no picture.
    """

    read: Read
    settings: str

    def __call__(self, picture: bytes) -> str:
        pixels = decode(picture, "ocr")  # upright and opaque, as the model sees it
        if pixels.ndim == 2:
            pixels = np.stack([pixels] * 3, axis=-1)
        found = self.read(np.ascontiguousarray(pixels))
        return in_reading_order([(box, text) for box, text, sure in found if sure >= LEAST and text.strip()])

    def describe(self) -> str:
        """Engine, versions, models and settings, for the results."""
        return self.settings


def recogniser(name: str) -> Recogniser:
    """name: rapidocr (Chinese and English, on a CPU) or easyocr (English).

    Raises: InputError for another name, and what to do for an engine or models that are not there.
    """
    engines = {"rapidocr": _rapidocr, "easyocr": _easyocr}
    if name not in engines:
        raise InputError(f"ocr={name!r} is unknown; choose one of {', '.join(engines)}")
    try:
        return engines[name]()
    except ImportError as error:
        raise InputError(f"ocr={name} cannot be imported ({error}); {INSTALL[name]}") from error


def with_text(prompt: str, text: str) -> str:
    """The prompt with recognised text in front of it; as it is where nothing was recognised."""
    return FORM.format(text=text, prompt=prompt) if text.strip() else prompt


def in_reading_order(found: Sequence[tuple[Box, str]]) -> str:
    """Lines from top to bottom, in each of them the boxes from left to right, joined by a blank."""
    lines: list[list[tuple[Box, str]]] = []
    for box, text in sorted(found, key=lambda item: (_middle(item[0]), item[0][0])):
        last = lines[-1][0][0] if lines else None
        if last is not None and _middle(box) - _middle(last) < SAME_LINE * min(_height(box), _height(last)):
            lines[-1].append((box, text))
        else:
            lines.append([(box, text)])
    return "\n".join(" ".join(text.strip() for _, text in sorted(line, key=lambda item: item[0][0])) for line in lines)


def _rapidocr() -> Recogniser:
    import rapidocr  # type: ignore[import-not-found]

    folder = Path(str(rapidocr.__file__)).parent / "models"
    models = {part: _only(folder, f"*_{part.lower()}_*.onnx") for part in ("Det", "Cls", "Rec")}
    # Named files are taken as they are; for any other the engine would ask the network.
    settings: dict[str, Any] = {f"{part}.model_path": str(path) for part, path in models.items()}
    engine = rapidocr.RapidOCR(params={**settings, "Global.log_level": "error", "Global.text_score": LEAST})

    def read(pixels: np.ndarray) -> list[tuple[Box, str, float]]:
        found = engine(pixels[:, :, ::-1])  # it takes BGR
        if found.txts is None:
            return []
        corners = [np.asarray(box, dtype=float) for box in found.boxes]
        return [(_around(box), text, sure) for box, text, sure in zip(corners, found.txts, found.scores, strict=True)]

    names = ", ".join(path.stem for path in models.values())
    return Recogniser(
        read, f"rapidocr {_version('rapidocr')}, onnxruntime {_version('onnxruntime')} ({names}), {_least()}"
    )


def _easyocr() -> Recogniser:
    import easyocr  # type: ignore[import-not-found]

    try:
        engine = easyocr.Reader(["en"], gpu=False, download_enabled=False, verbose=False)
    except FileNotFoundError as error:
        raise InputError(
            f"ocr=easyocr: {error}. Nothing is downloaded here; fetch its models once, where there is a network, with "
            "python -c \"import easyocr; easyocr.Reader(['en'])\", or choose ocr=rapidocr, which brings its own"
        ) from error

    def read(pixels: np.ndarray) -> list[tuple[Box, str, float]]:
        file = BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)  # of arrays it takes colours for grey in two orders
        return [
            (_around(np.asarray(corners, dtype=float)), text, float(sure))
            for corners, text, sure in engine.readtext(file.getvalue())
        ]

    return Recogniser(read, f"easyocr {_version('easyocr')} (craft, english_g2), {_least()}")


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(
            f"ocr=rapidocr: {folder} should hold one {pattern}, but there is {names}; {INSTALL['rapidocr']} "
            "--force-reinstall (its wheel brings the models)"
        )
    return found[0]


def _around(corners: np.ndarray) -> Box:
    """corners [4, 2] -> the upright box around them."""
    (left, top), (right, bottom) = corners.min(0), corners.max(0)
    return float(left), float(top), float(right), float(bottom)


def _middle(box: Box) -> float:
    return (box[1] + box[3]) / 2


def _height(box: Box) -> float:
    return box[3] - box[1]


def _least() -> str:
    return f"lines of confidence {LEAST} or more"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError as error:
        raise ImportError(f"{package} is not installed") from error
