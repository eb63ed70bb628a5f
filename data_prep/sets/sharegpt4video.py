"""ShareGPT4Video: captions of key frames and, under the name "-1", of the whole clip; clips in zips by their origin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from data_prep.reading.archives import Archive, archives_in, present
from data_prep.reading.tables import json_rows, layout
from data_prep.rows import Clip, Inputs, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

FORM = (
    '{"video_id": "…", "video_path": "…", "timestamp": […], "keyframe": […], '
    '"captions": [{"idx": "0", "content": "…"}, {"idx": "-1", "content": "…"}], "zip_folder": "panda_videos_1.zip"}'
)
NEEDED = {"video_id", "captions", "zip_folder"}
WHOLE = "-1"  # a string, as all numbers of captions are: compared with a number, no clip would have a caption


@dataclass(frozen=True)
class ShareGpt4Video:
    """Rows of one file; the caption of the whole clip is the text, those of its parts are kept in meta.segments.

    archives: patterns of the zips.   partial: whether rows whose zip is not there are left out without a limit.
    """

    __pydantic_config__: ClassVar = STRICT
    file: str
    archives: list[str]
    partial: bool
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return None

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """In the file's order. Raises: InputError for a file of another form, and for a damaged zip."""
        home = inputs.only()
        path = home / self.file
        if not path.is_file():
            raise InputError(f"{path} is missing; put the published file there, or name it: source.reader.file=NAME")
        if layout(path) != "lines":
            raise InputError(f"{path} holds one JSON array; expected one object a line: {FORM}")
        zips = {files[0].name: files for files in archives_in(home, self.archives)}
        if not zips:
            raise InputError(f"{home} holds no zip {' or '.join(self.archives)}; put one or more there")
        inputs.note(path)
        for files in zips.values() if not inputs.dry else ():
            for part in files:
                inputs.note(part)
        opened: dict[str, Archive] = {}
        for number, content in json_rows(path, FORM):
            origin = Origin(path.name, number, str(number))
            try:
                row = _checked(content, f"{path} line {number + 1}", first=number == 0)
                origin = Origin(path.name, number, row["video_id"])
                yield self._row(origin, row, zips, opened)
            except Unfit as fault:
                yield Skip(None, origin, fault.reason, fault.detail)

    def _row(self, origin: Origin, row: dict[str, Any], zips: dict[str, list[Path]], opened: dict[str, Archive]) -> Row:
        captions = [(str(entry["idx"]), " ".join(entry["content"].split())) for entry in row["captions"]]
        whole = next((text for idx, text in captions if idx == WHOLE and text), None)
        if whole is None:
            raise Unfit("annotation_missing", f"no caption has idx {WHOLE!r}, which is that of the whole clip")
        archive, name = row["zip_folder"], f"{row['video_id']}.mp4"
        if archive not in opened and archive in zips:
            opened[archive] = Archive(zips[archive], named=lambda name: PurePosixPath(name).stem)
        held = opened[archive].find(row["video_id"]) if archive in opened else None
        if archive in opened and held is None:
            raise Unfit("media_missing", f"{name} is not in {archive}")
        clip = Clip(present(held, name, self.partial), f"{archive}/{name}")
        meta: dict[str, Any] = {"segments": [{"idx": idx, "content": text} for idx, text in captions if idx != WHOLE]}
        meta |= {key: row[key] for key in ("timestamp", "keyframe") if row.get(key) is not None}
        return Row(None, origin, (clip,), self.license, caption=whole, meta=meta)


def _checked(content: Any, where: str, *, first: bool) -> dict[str, Any]:
    """Raises: Unfit for a row of another form, InputError if it is the first."""
    if isinstance(content, Unfit):
        raise content
    told = ""
    if not isinstance(content, dict) or not set(content) >= NEEDED:
        told = f"has {sorted(content) if isinstance(content, dict) else str(content)[:60]}; expected {FORM}"
    elif not isinstance(content["video_id"], str) or not isinstance(content["zip_folder"], str):
        told = "has a video_id or zip_folder that is no text"
    elif not isinstance(content["captions"], list) or not all(_is_caption(one) for one in content["captions"]):
        told = f"has the captions {str(content['captions'])[:80]!r}; expected {FORM}"
    if told and first:
        raise InputError(f"{where} {told}. Is it the right file?")
    if told:
        raise Unfit("row_malformed", f"the row {told}")
    return content


def _is_caption(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("content"), str) and isinstance(entry.get("idx"), str | int)
