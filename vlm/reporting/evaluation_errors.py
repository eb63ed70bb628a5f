"""The worst errors of an evaluation, ready for the page: pictures as data URIs, texts of bearable length."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vlm.reporting.evaluation_records import Entry, read_rows
from vlm.reporting.evaluation_worst import MOST, Errors, Row
from vlm.reporting.pictures import SHARP_BELOW

SIDE = 256  # pixels of a picture's longer side
LONGEST = 220  # characters of a text; of a longer one its beginning and its end are shown
ENDING = 60  # characters of that end
PICTURE_KEYS = ("benchmark", "settings", "id", "file")
Key = tuple[str, str]  # benchmark and id of the settings


@dataclass(frozen=True)
class Text:
    """A text for the page. length: of the whole, in characters, where it is shortened."""

    text: str
    length: int | None = None


@dataclass(frozen=True)
class Shown:
    """One error. source: the picture as a data URI; None without one.   missing: why there is none.

    read: what the rule read, None if nothing.   is_tiny: enlarge in blocks.
    """

    id: Text
    prompt: Text
    prediction: Text
    read: Text | None
    truth: Text
    score: float
    truncated: bool
    source: str | None
    missing: str = "no picture kept"
    is_tiny: bool = False


def worst_errors(folder: Path, predictions: Path, entries: Sequence[Entry]) -> dict[Key, list[Shown] | None]:
    """By benchmark and settings: the errors whose pictures were kept, or where none were, those that `worst` picks.

    predictions: the file of the answers.   Returns: None for answers without scores of their own.
    Raises: InputError for predictions or a pictures.jsonl that cannot be used.
    """
    files: dict[Key, dict[str, str]] = defaultdict(dict)
    if (folder / "pictures.jsonl").exists():
        for row in read_rows(folder / "pictures.jsonl", PICTURE_KEYS):
            files[_key(row)].setdefault(str(row["id"]), str(row["file"]))
    wanted: dict[Key, list[Row]] = defaultdict(list)
    chosen = {entry.key: Errors(MOST, _split_keys(entries, entry.key)) for entry in entries if entry.key not in files}
    scored: set[Key] = set()
    for row in read_rows(predictions):
        key = _key(row)
        if row.get("score") is None:
            continue
        scored.add(key)
        if key in chosen:
            chosen[key].add(row)
        elif str(row["id"]) in files.get(key, {}):
            wanted[key].append(row)
    found: dict[Key, list[Shown] | None] = {}
    for key in {entry.key for entry in entries}:
        rows = chosen[key].pick() if key in chosen else _in_order(wanted[key], files[key])
        found[key] = [_shown(row, folder, files.get(key, {})) for row in rows] if key in scored else None
    return found


def shorten(text: str) -> Text:
    """A text as it is, or its beginning and end with the length told."""
    if len(text) <= LONGEST + ENDING:
        return Text(text)
    return Text(f"{text[:LONGEST]} … {text[-ENDING:]}", len(text))


def truth(reference: Any) -> str:
    """The gold data of a row in words, whatever its benchmark: the right answer, with its text where it is a letter."""
    if isinstance(reference, str):
        return reference
    if isinstance(reference, Mapping):
        for key in ("gold", "label", "answer", "answers", "references"):
            if key in reference and reference[key] is not None:
                return _answer(reference[key], reference)
        if reference and all(isinstance(value, str) for value in reference.values()):  # facts, such as colour and shape
            return ", ".join(f"{key} {value}" for key, value in reference.items())
    if isinstance(reference, list):
        return _answer(reference, {})
    return json.dumps(reference, ensure_ascii=False)


def _answer(gold: Any, reference: Mapping[str, Any]) -> str:
    if isinstance(gold, list):
        counts = Counter(item.get("answer", "") if isinstance(item, Mapping) else str(item) for item in gold)
        return ", ".join(f"{text} ({count} times)" if count > 1 else text for text, count in counts.most_common(6))
    options = next((reference[key] for key in ("options", "choices", "candidates") if reference.get(key)), None)
    letter = str(gold)
    if isinstance(options, Mapping) and letter in options:
        return f"{letter}: {options[letter]}"
    if isinstance(options, list) and len(letter) == 1 and 0 <= ord(letter) - ord("A") < len(options):
        return f"{letter}: {options[ord(letter) - ord('A')]}"
    return letter


def _shown(row: Row, folder: Path, files: Mapping[str, str]) -> Shown:
    file = files.get(str(row["id"]))
    source, is_tiny = _picture(folder / "pictures", file) if file is not None else (None, False)
    asked = row.get("prompt", "")
    prompt = asked if isinstance(asked, str) else json.dumps(asked, ensure_ascii=False)
    parsed = None if row.get("unparsable") else row.get("parsed")
    return Shown(
        id=shorten(str(row["id"])),
        prompt=shorten(prompt),
        prediction=shorten(str(row["prediction"])),
        read=None if parsed is None else shorten(str(parsed)),
        truth=shorten(truth(row["reference"]) if "reference" in row else "not known"),
        score=float(row["score"]),
        truncated=bool(row.get("truncated")),
        source=source,
        missing="no picture kept" if file is None else "picture cannot be read",
        is_tiny=is_tiny,
    )


def _picture(folder: Path, file: str) -> tuple[str | None, bool]:
    """Data URI of a picture of the folder, and whether it is so small that its pixels are worth seeing."""
    try:
        # Only the name counts: a record cannot make the page show a file from elsewhere.
        with Image.open(folder / file.replace("\\", "/").rpartition("/")[2]) as picture:
            is_tiny = max(picture.size) < SHARP_BELOW
            picture.thumbnail((SIDE, SIDE))
            has_alpha = "A" in picture.getbands() or "transparency" in picture.info
            kind = "PNG" if is_tiny or has_alpha else "JPEG"  # photographs as PNG would make the page ten times larger
            stream = io.BytesIO()
            picture.convert("RGBA" if has_alpha else "RGB").save(stream, kind, optimize=True, quality=82)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # PIL's ways to refuse a file
        return None, False
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}", is_tiny


def _in_order(rows: Sequence[Row], files: Mapping[str, str]) -> list[Row]:
    """In the order in which the pictures were kept. An answer that is not in the file has nothing to show."""
    by_id = {str(row["id"]): row for row in rows}
    return [by_id[name] for name in files if name in by_id]


def _split_keys(entries: Sequence[Entry], key: Key) -> list[str]:
    """Keys of the reference by which a benchmark is reported apart, as its splits name them."""
    splits = [entry.split for entry in entries if entry.key == key and "=" in entry.split]
    return list(dict.fromkeys(split.partition("=")[0] for split in splits))


def _key(row: Mapping[str, Any]) -> Key:
    return str(row["benchmark"]), str(row.get("settings", ""))
