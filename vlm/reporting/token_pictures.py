"""Pictures with the boxes of their tokens as inline SVG, and saliency as a heat map.

A picture stands in the page once and is referred to by every budget; the boxes of a level are one path.
"""

from __future__ import annotations

import base64
import io
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from vlm.reporting.pictures import SHARP_BELOW
from vlm.reporting.token_records import Cut

LONGEST = 640  # pixels of a picture's longer side in the page
FINE = 400  # boxes from which lines are thinner, or they would hide the picture
HEAT_SIDE = 128  # pixels of a heat map's longer side at most; boxes are painted, not interpolated
# Dark to light, so that it can be told without colours, too.
HEAT = np.array(
    [(20, 11, 52), (79, 18, 110), (140, 41, 99), (196, 63, 74), (237, 112, 37), (251, 176, 28), (252, 255, 164)],
    dtype=float,
)


def picture(view: np.ndarray, identity: str) -> str:
    """A hidden <svg> that holds the picture as the symbol `identity`, in units of its pixels. view: uint8."""
    height, width = view.shape[:2]
    svg = ElementTree.Element("svg", {"class": "held", "aria-hidden": "true", "width": "0", "height": "0"})
    symbol = ElementTree.SubElement(svg, "symbol", {"id": identity, "viewBox": f"0 0 {width} {height}"})
    shown = {"href": _source(view), "width": str(width), "height": str(height)}
    if max(width, height) < SHARP_BELOW:
        shown["class"] = "tiny"
    ElementTree.SubElement(symbol, "image", shown)
    return ElementTree.tostring(svg, encoding="unicode")


def boxes(cut: Cut, view: np.ndarray, identity: str, words: str) -> str:
    """An <svg>: the picture of that symbol, over it the outlines of all boxes, each line on a dark edge of its own.

    words: for those who cannot see it.
    """
    height, width = view.shape[:2]
    kind = "boxes fine" if len(cut.boxes) > FINE else "boxes"
    svg = ElementTree.Element(
        "svg", {"class": kind, "viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": words}
    )
    ElementTree.SubElement(svg, "title").text = words
    ElementTree.SubElement(svg, "use", {"href": f"#{identity}", "width": str(width), "height": str(height)})
    paths = {int(level): _path(cut.boxes[cut.levels == level], width, height) for level in np.unique(cut.levels)}
    for path in paths.values():
        ElementTree.SubElement(svg, "path", {"class": "edge", "d": path})
    for level, path in sorted(paths.items(), reverse=True):  # the large boxes' lines lie above
        ElementTree.SubElement(svg, "path", {"class": f"level-{level}", "d": path})
    return ElementTree.tostring(svg, encoding="unicode")


def heat_map(cut: Cut, view: np.ndarray, low: float, high: float) -> str:
    """Saliency of each box in colour, as a data URI. low, high: saliency of the darkest and the lightest colour."""
    assert cut.saliency is not None
    least = max(1.0 / HEAT_SIDE, float(cut.boxes[:, 2:].min()))
    columns = rows = min(HEAT_SIDE, round(1 / least))
    ratio = view.shape[0] / view.shape[1]
    rows, columns = (round(rows * ratio), columns) if ratio < 1 else (rows, round(columns / ratio))
    painted = np.full((max(1, rows), max(1, columns)), low)
    for (x, y, width, height), value in zip(cut.boxes, cut.saliency, strict=True):
        top, bottom = (round(edge * painted.shape[0]) for edge in (y - height / 2, y + height / 2))
        left, right = (round(edge * painted.shape[1]) for edge in (x - width / 2, x + width / 2))
        painted[max(0, top) : bottom, max(0, left) : right] = value
    return _uri(Image.fromarray(colours((painted - low) / (high - low or 1.0))), "PNG")


def colours(values: np.ndarray) -> np.ndarray:
    """Values in 0..1 -> uint8 [..., 3]."""
    places = np.clip(values, 0, 1) * (len(HEAT) - 1)
    channels = [np.interp(places, np.arange(len(HEAT)), HEAT[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat_scale() -> str:
    """The colours from the darkest to the lightest, as a data URI."""
    return _uri(Image.fromarray(colours(np.linspace(0, 1, 128)[None, :])), "PNG")


def _path(corners: np.ndarray, width: int, height: int) -> str:
    """boxes [n, 4] as one path, in pixels of the view."""
    lines = []
    for x, y, across, down in corners * (width, height, width, height):
        lines.append(
            f"M{_short(x - across / 2)} {_short(y - down / 2)}h{_short(across)}v{_short(down)}h{_short(-across)}z"
        )
    return "".join(lines)


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _source(view: np.ndarray) -> str:
    """Photographs as JPEG; small pictures as PNG, so that their pixels stay what they are."""
    image = Image.fromarray(view)
    if max(image.size) < SHARP_BELOW:
        return _uri(image, "PNG")
    image.thumbnail((LONGEST, LONGEST))
    return _uri(image, "JPEG")


def _uri(image: Image.Image, kind: str) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, optimize=True, quality=85)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"
