"""The rules of preference pairs: two answers to one question about one picture."""

from __future__ import annotations

import json
from typing import Any

from data_prep.rows import Picture, Row, Unfit, question, reply
from vlm.contracts.errors import InputError
from vlm.data.canonical import Origin
from vlm.data.coco import coco_number


def pair(
    origin: Origin, picture: Picture, license: str, asked: str, chosen: str, rejected: str, meta: dict[str, Any]
) -> Row:
    """A pair of a published set, whose questions never hold placeholders: the picture stands before the text.

    Raises: Unfit("text_empty" | "pair_equal").
    """
    if not asked.strip():
        raise Unfit("text_empty", "the question is empty, and no other may be asked in its place")
    check_answers(chosen, rejected)
    return Row(
        None, origin, (picture,), license,
        messages=[question(asked)], chosen=[reply(chosen)], rejected=[reply(rejected)], meta=meta,
    )  # fmt: skip


def shown(image: dict[str, Any] | None, path: str | None) -> Picture:
    """The picture of a parquet row, by whichever of its names tells which COCO picture it is, else by the first.

    image: {"bytes", "path"}.   path: another name that the row has; it need not be a file.
    Raises: Unfit("media_missing").
    """
    names = [name for name in ((image or {}).get("path"), path) if name]
    name = next((name for name in names if coco_number(name) is not None), (names or [""])[0])
    content = (image or {}).get("bytes")
    if not content:
        raise Unfit("media_missing", f"the row holds no picture; it names {name!r}")
    return Picture(content, name)


def json_object(origin: Origin, column: str, text: str | None, keys: tuple[str, ...]) -> dict[str, str]:
    """A JSON string with exactly these keys and texts behind them.

    Text in single quotes comes from a re-upload that printed Python objects; it is refused, never evaluated.
    Raises: InputError for it, for other keys, or if the first row is no JSON; Unfit("row_malformed").
    """
    where, form = f"{origin.file} row {origin.row} (from 0): {column}", ", ".join(f'"{key}": "…"' for key in keys)
    try:
        content = json.loads(text or "")
    except (ValueError, RecursionError) as error:
        if origin.row == 0 or (text or "").lstrip().startswith("{'"):
            raise InputError(
                f"{where} is {text!r:.60}, not JSON of the form {{{form}}} ({error}); get the published file"
            ) from error
        raise Unfit("row_malformed", f"{column} is no JSON: {error}") from error
    if not isinstance(content, dict) or set(content) != set(keys):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{where} has {found}; exactly {{{form}}} is expected; get the published file")
    for key, value in content.items():
        if not isinstance(value, str):
            raise Unfit("row_malformed", f"{key} in {column} is {value!r:.60}, not a text")
    return content


def check_answers(chosen: str, rejected: str) -> None:
    """Raises: Unfit("text_empty" | "pair_equal"); answers that differ in white space alone are equal."""
    for name, text in (("chosen", chosen), ("rejected", rejected)):
        if not text.strip():
            raise Unfit("text_empty", f"the {name} answer is empty")
    if chosen.split() == rejected.split():
        raise Unfit("pair_equal", f"chosen and rejected are both {chosen[:60]!r}")
