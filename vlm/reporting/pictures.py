"""The pictures of a run as thumbnails inside the page, with the model's own words."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from vlm.reporting.runs import Run, Sample

SIDE = 144  # pixels of a thumbnail's longer side; smaller pictures stay as they are
SHARP_BELOW = 96  # smaller pictures stand close together and are enlarged in blocks, so that their pixels can be seen


@dataclass(frozen=True)
class Thumbnail:
    """A sample with its picture as a data URI; None where the picture cannot be read. is_tiny: enlarge in blocks."""

    sample: Sample
    source: str | None
    is_tiny: bool = False


def thumbnails(run: Run, most: int) -> list[Thumbnail]:
    """The first `most` samples of a run."""
    return [_thumbnail(run, sample) for sample in run.samples[:most]]


def _thumbnail(run: Run, sample: Sample) -> Thumbnail:
    if sample.image is None:
        return Thumbnail(sample, None)
    try:
        # Only the name counts: a record cannot make the page show a file from elsewhere.
        with Image.open(run.path / "samples" / sample.image.replace("\\", "/").rpartition("/")[2]) as picture:
            is_tiny = max(picture.size) < SHARP_BELOW
            picture.thumbnail((SIDE, SIDE))
            small = picture if picture.mode in ("L", "LA", "RGB", "RGBA") else picture.convert("RGBA")
            stream = io.BytesIO()
            small.save(stream, "PNG", optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # PIL's ways to refuse a file
        return Thumbnail(sample, None)
    return Thumbnail(sample, f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}", is_tiny)
