"""A page of answers of two models side by side, which a reader filters without any script; nothing in it is fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from vlm.contracts.errors import InputError
from vlm.contracts.writing import write_whole
from vlm.evaluation.compare import Comparison
from vlm.evaluation.text import amount, gap, gap_span, span, title
from vlm.evaluation.thumbnails import thumbnail
from vlm.reporting.answers import KINDS, Pairing, pairings
from vlm.reporting.evaluation import UNPRINTABLE
from vlm.reporting.evaluation_numbers import label

MOST_PICTURES = 300  # of a page; what comes after them stands there in words
WORDS = {
    "lost": "worse",
    "gained": "better",
    "more": "more faults",
    "fewer": "fewer faults",
    "words": "other words",
    "same": "same words",
}
Pictures = Callable[[Pairing], Mapping[str, bytes]]  # id of a question -> its first picture, encoded


def write_answers(comparison: Comparison, pictures: Pictures, out: Path) -> Path:
    """The page about the compared models; one that was there is replaced in one step.

    pictures: of the questions that are shown; may raise an InputError, which the page then tells.
    Raises: InputError for evaluation folders that cannot be read; RunError if the page cannot be written.
    """
    found = pairings([Path(model) for model in comparison.models])
    write_whole(out, [render(comparison, found, pictures)])
    return out


def render(comparison: Comparison, found: Sequence[Pairing], pictures: Pictures) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("vlm.reporting", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(label=label, short=_short)
    environment.globals.update(amount=amount, span=span, gap=gap, gap_span=gap_span, title=title)
    left, shown, missing = MOST_PICTURES, [], []
    for pairing in found:
        try:
            read = pictures(pairing)
        except InputError as error:
            read, words = {}, str(error)
            missing.append((pairing.title, words))
        sources = {}
        for row in pairing.rows:
            if row.id in read and left > 0:
                sources[row.id] = _source(read[row.id], row.id)
                left -= 1
        shown.append((pairing, sources))
    page = environment.get_template("answers.html.j2").render(
        comparison=comparison, shown=shown, missing=missing, kinds=WORDS, most=KINDS, is_full=left == 0
    )
    return UNPRINTABLE.sub("\ufffd", page)


def _short(model: str) -> str:
    """The end of a path, which tells runs apart."""
    parts = Path(model).parts
    return "/".join(parts[-2:]) if len(parts) > 2 else model


def _source(data: bytes, name: str) -> str | None:
    """A small picture as a data URI, None if it cannot be read."""
    try:
        picture = thumbnail(data, name)
    except InputError:
        return None  # the page says that it cannot be read, as for errors
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=82, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
