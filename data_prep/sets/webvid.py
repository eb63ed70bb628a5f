"""WebVid: tables of captions whose clips their owner withdrew; what lies on this machine already is read, nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from data_prep.reading.archives import Folder, present
from data_prep.reading.tables import headed_rows
from data_prep.rows import Clip, Inputs, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

COLUMNS = ("videoid", "contentUrl", "duration", "page_dir", "name")
DURATION = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?")


@dataclass(frozen=True)
class WebVid:
    """Rows of all tables in the folder, in the order of their names.

    files: pattern of the tables.   clips: folder of the clips below it, `<page_dir>/<videoid>.mp4`.
    partial: whether rows without a clip are left out without a limit.
    """

    __pydantic_config__: ClassVar = STRICT
    files: str
    clips: str
    partial: bool
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return None

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for a hub id: the tables there hold addresses of clips that may not be fetched any more."""
        home = inputs.only()
        if inputs.package:
            raise InputError(
                f"{inputs.package} holds addresses alone, and their owner withdrew the clips: nothing is fetched. Give "
                "the folder of clips that are on this machine, with the tables: from=DIR"
            )
        tables = sorted(home.glob(self.files))
        if not tables:
            raise InputError(f"{home} holds no table {self.files}; put it there, or name it: source.reader.files=NAME")
        if not (home / self.clips).is_dir():
            raise InputError(f"{home / self.clips} is not there; it must hold the clips, as page_dir/videoid.mp4")
        clips = Folder(inputs, home / self.clips)
        for path in map(inputs.note, tables):
            for number, content in headed_rows(path, COLUMNS):
                origin = Origin(path.name, number, str(number))
                try:
                    if isinstance(content, Unfit):
                        raise content
                    origin = Origin(path.name, number, content["videoid"])
                    yield self._row(origin, content, clips)
                except Unfit as fault:
                    yield Skip(None, origin, fault.reason, fault.detail)

    def _row(self, origin: Origin, content: dict[str, str], clips: Folder) -> Row:
        caption = " ".join(content["name"].split())
        if not caption:
            raise Unfit("annotation_missing", "the row has no caption")
        name = f"{content['page_dir']}/{content['videoid']}.mp4"
        clip = Clip(present(clips.find(name), name, self.partial), name)
        meta = {"duration": seconds(content["duration"])}
        return Row(None, origin, (clip,), self.license, caption=caption, meta=meta)


def seconds(text: str) -> int:
    """Of PT00H01M15S. Raises: Unfit("row_malformed")."""
    found = DURATION.fullmatch(text)
    if found is None or not any(found.groups()):
        raise Unfit("row_malformed", f"{text[:40]!r} is no duration like PT00H00M15S")
    hours, minutes, rest = (int(group or 0) for group in found.groups())
    return 3600 * hours + 60 * minutes + rest
