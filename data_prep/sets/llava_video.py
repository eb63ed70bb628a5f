"""LLaVA-Video-178K: three files of questions and captions a folder, and clips in compressed tars, read as they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from data_prep.reading.archives import Folder, archives_in, present, streamed
from data_prep.reading.clip_talks import FORM, Shelf, checked, talk
from data_prep.reading.tables import json_rows, layout
from data_prep.rows import Clip, Inputs, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

ALSO = {"data_source"}


@dataclass(frozen=True)
class LlavaVideo:
    """One sample a row of the annotation files: nothing of one clip is joined, and no caption is made up.

    parts: folders of the set.   files: patterns of the annotation files in each.   archives: patterns of its tars.
    unpacked: folder of the clips where the tars were unpacked, None = they are read in the order of the tars, each
    once from beginning to end, however often it goes on.
    partial: whether rows whose clip is in none of the tars that are there are left out without a limit.
    """

    __pydantic_config__: ClassVar = STRICT
    parts: list[str]
    files: list[str]
    archives: list[str]
    unpacked: str | None
    partial: bool
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return None

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """By clips in the order of the tars, or by rows where the clips are unpacked.

        Raises: InputError for files of another form, and for a tar that is damaged.
        """
        for part in self.parts:
            home = inputs.only() / part
            paths = list(dict.fromkeys(path for pattern in self.files for path in sorted(home.glob(pattern))))
            if not paths:
                raise InputError(
                    f"{home} holds no {' or '.join(self.files)}; put the part there, or choose with source.reader.parts"
                )
            if self.unpacked is not None:
                yield from self._of_folder(inputs, paths, Folder(inputs, inputs.only() / self.unpacked))
                continue
            tars = [path for files in archives_in(home, self.archives) for path in files]
            if not tars:
                raise InputError(
                    f"{home} holds no {' or '.join(self.archives)}; put tars there, or name the folder that they were "
                    "unpacked into with source.reader.unpacked=FOLDER"
                )
            with Shelf(inputs.scratch) as shelf:
                yield from self._of_tars(inputs, part, paths, tars, shelf)

    def _of_folder(self, inputs: Inputs, paths: list[Path], clips: Folder) -> Iterator[Row | Skip]:
        for origin, content in _annotations(inputs, paths):
            try:
                if isinstance(content, Unfit):
                    raise content
                name = content["video"]
                yield self._row(origin, content, Clip(present(clips.find(name), name, self.partial), name))
            except Unfit as fault:
                yield Skip(None, origin, fault.reason, fault.detail)

    def _of_tars(
        self, inputs: Inputs, part: str, paths: list[Path], tars: list[Path], shelf: Shelf
    ) -> Iterator[Row | Skip]:
        for origin, content in _annotations(inputs, paths):
            if isinstance(content, Unfit):
                yield Skip(None, origin, content.reason, content.detail)
            else:
                shelf.put(content["video"], origin, content)
        shelf.full()
        told = 0
        for path in tars:
            if not inputs.dry:
                inputs.note(path)
            for name, data in streamed(path, shelf.waits):
                rows = shelf.take(name)
                if not rows:
                    yield Skip(None, Origin(part, told, name), "annotation_missing", f"no row tells of {name}")
                    told += 1
                for origin, content in rows:
                    try:
                        if isinstance(data, Unfit):
                            raise data
                        yield self._row(origin, content, Clip(data, name))
                    except Unfit as fault:
                        yield Skip(None, origin, fault.reason, fault.detail)
        for origin, name in shelf.left():
            reason = "excluded" if self.partial else "media_missing"
            yield Skip(None, origin, reason, f"{name} is in none of the tars that are there")

    def _row(self, origin: Origin, content: dict[str, Any], clip: Clip) -> Row:
        messages, repaired = talk(content["conversations"], f"{origin.file} row {origin.row} (from 0)")
        meta = {name: content[name] for name in sorted(ALSO) if content.get(name)}
        return Row(None, origin, (clip,), self.license, messages=messages, meta=meta or None, repaired=tuple(repaired))


def _annotations(inputs: Inputs, paths: list[Path]) -> Iterator[tuple[Origin, Any]]:
    """Each row that has the form, or why not, with where it stands."""
    for path in map(inputs.note, paths):
        if layout(path) != "array":
            raise InputError(f"{path} holds one JSON object a line; expected one JSON array of {FORM}")
        for number, content in json_rows(path, FORM):
            origin = Origin(path.name, number, str(number))
            try:
                row = checked(content, f"{path} row {number} (from 0)", first=number == 0, also=ALSO)
                yield Origin(path.name, number, str(row["id"])), row
            except Unfit as fault:
                yield origin, fault
