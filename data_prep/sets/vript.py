"""Vript: one caption a scene, in JSON Lines; the scenes' clips lie in zips, one folder a video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from data_prep.reading.archives import Archives, archives_in, present
from data_prep.reading.tables import json_rows, layout
from data_prep.rows import Clip, Inputs, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

FORM = (
    '{"meta": {"video_id", "video_title", "num_clips", "integrity"}, "clip_id": "<video>-Scene-<nnn>", '
    '"caption": {"shot_type", "camera_movement", "content", "scene_title"}}'
)
META = {"video_id", "video_title", "num_clips", "integrity"}
CAPTION = {"shot_type", "camera_movement", "content", "scene_title"}


@dataclass(frozen=True)
class Vript:
    """Rows of the caption files, one a clip. A clip without a caption is told and left out; none is made up.

    files: below the set's folder.   archives: patterns of the zips of clips (not those of whole videos).
    tells: fields of the caption, in order; more than `content` makes a sentence of each.
    partial: whether rows whose clip is in none of the zips that are there are left out without a limit.
    """

    __pydantic_config__: ClassVar = STRICT
    files: list[str]
    archives: list[str]
    tells: list[Literal["scene_title", "content", "shot_type", "camera_movement"]]
    partial: bool
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return None

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """In the files' order, then the clips that no row tells of. Raises: InputError for files of another form."""
        home = inputs.only()
        paths = [home / name for name in self.files if (home / name).is_file()]
        if not paths:
            raise InputError(f"{home} holds none of {', '.join(self.files)}; put the published captions there")
        files = archives_in(home, self.archives)
        if not files:
            raise InputError(f"{home} holds no zip of clips ({', '.join(self.archives)}); put one or more there")
        clips = Archives(inputs, files, named=lambda name: PurePosixPath(name).stem)
        told: set[str] = set()
        for path in map(inputs.note, paths):
            yield from self._of_file(path, clips, told)
        for number, name in enumerate(name for name in clips if name not in told):
            yield Skip(None, Origin("zips", number, name), "annotation_missing", f"no caption tells of {name}")

    def _of_file(self, path: Path, clips: Archives, told: set[str]) -> Iterator[Row | Skip]:
        if layout(path) != "lines":
            raise InputError(f"{path} holds one JSON array; expected one object a line: {FORM}")
        for number, content in json_rows(path, FORM):
            origin = Origin(path.name, number, str(number))
            try:
                row = _checked(content, f"{path} line {number + 1}", first=number == 0)
                origin = Origin(path.name, number, row["clip_id"])
                told.add(row["clip_id"])
                yield self._row(origin, row, clips)
            except Unfit as fault:
                yield Skip(None, origin, fault.reason, fault.detail)

    def _row(self, origin: Origin, row: dict[str, Any], clips: Archives) -> Row:
        texts = [" ".join(str(row["caption"].get(name) or "").split()) for name in self.tells]
        if not " ".join(str(row["caption"].get("content") or "").split()):
            raise Unfit("annotation_missing", "the caption has no content")
        name, meta = row["clip_id"], row["meta"]
        found = clips.find(name)
        if found is None and meta.get("integrity") is False:
            raise Unfit("excluded", f"{name} is not there, and the publisher says that clips of this video are missing")
        clip = Clip(present(found, name, self.partial), f"{name}.mp4")
        caption = texts[0] if len(texts) == 1 else " ".join(f"{text.rstrip('.')}." for text in texts if text)
        kept = {"video_id": meta["video_id"], "title": meta.get("video_title")}
        kept |= {name: row["caption"].get(name) for name in sorted(CAPTION - {"content"})}
        return Row(None, origin, (clip,), self.license, caption=caption, meta={k: v for k, v in kept.items() if v})


def _checked(content: Any, where: str, *, first: bool) -> dict[str, Any]:
    """Raises: Unfit for a row of another form, InputError if it is the first."""
    if isinstance(content, Unfit):
        raise content
    told = ""
    if not isinstance(content, dict) or set(content) != {"meta", "clip_id", "caption"}:
        keys = sorted(content) if isinstance(content, dict) else str(content)[:60]
        told = f"has {keys}; expected {FORM}"
        if isinstance(content, dict) and "data" in content:
            told += ". It is one row a video, as the zipped captions are: take the .jsonl beside the zips"
    elif not isinstance(content["meta"], dict) or not {"video_id", "integrity"} <= set(content["meta"]) <= META:
        told = f"has the meta {str(content['meta'])[:80]!r}; expected {FORM}"
    elif not isinstance(content["caption"], dict) or not set(content["caption"]) <= CAPTION:
        told = f"has the caption {str(content['caption'])[:80]!r}; expected {FORM}"
    elif not isinstance(content["clip_id"], str):
        told = f"has the clip_id {content['clip_id']!r}"
    if told and first:
        raise InputError(f"{where} {told}. Is it the right file?")
    if told:
        raise Unfit("row_malformed", f"the row {told}")
    return content
