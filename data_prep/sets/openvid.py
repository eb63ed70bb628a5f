"""OpenVid-1M: one table of captions, and clips in a hundred and more zips, some of them cut in two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar

from data_prep.reading.archives import Archives, archives_in, present
from data_prep.reading.tables import headed_rows
from data_prep.rows import Clip, Inputs, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

COLUMNS = (
    "video", "caption", "aesthetic score", "motion score", "temporal consistency score", "camera motion", "frame",
    "fps", "seconds",
)  # fmt: skip
NUMBERS = ("aesthetic score", "motion score", "temporal consistency score")


@dataclass(frozen=True)
class OpenVid:
    """Rows of one table. Its HD table repeats 433,000 of them, so one of the two is taken, never both.

    file: the table.   archives: patterns of the zips; `_partaa`, `_partab` behind a name are joined as one.
    partial: whether rows whose clip is in none of the zips that are there are left out without a limit.
    """

    __pydantic_config__: ClassVar = STRICT
    file: str
    archives: list[str]
    partial: bool
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return None

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """In the table's order. Raises: InputError for another table, no zip, or one that is damaged."""
        home = inputs.only()
        path = home / self.file
        if not path.is_file():
            raise InputError(f"{path} is missing; put the published table there, or name it: source.reader.file=NAME")
        files = archives_in(home, self.archives)
        if not files:
            raise InputError(f"{home} holds no zip named {' or '.join(self.archives)}; put one or more parts there")
        inputs.note(path)
        clips = Archives(inputs, files, named=lambda name: PurePosixPath(name).name)
        for number, content in headed_rows(path, COLUMNS):
            origin = Origin(path.name, number, str(number))
            try:
                if isinstance(content, Unfit):
                    raise content
                origin = Origin(path.name, number, content["video"])
                yield self._row(origin, content, clips)
            except Unfit as fault:
                yield Skip(None, origin, fault.reason, fault.detail)

    def _row(self, origin: Origin, content: dict[str, str], clips: Archives) -> Row:
        caption = " ".join(content["caption"].split())
        if not caption:
            raise Unfit("annotation_missing", "the row has no caption")
        name = content["video"]
        clip = Clip(present(clips.find(name), name, self.partial), name)
        meta: dict[str, Any] = {"camera_motion": content["camera motion"]}
        meta |= {column.replace(" ", "_"): _number(content[column]) for column in NUMBERS}
        return Row(None, origin, (clip,), self.license, caption=caption, meta=meta)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise Unfit("row_malformed", f"{text[:40]!r} stands where a number should be") from error
