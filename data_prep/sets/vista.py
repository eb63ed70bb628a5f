"""VISTA-400K: a file of talks a task, and clips that lie in numbered tars as folders of frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar

from data_prep.reading.archives import Archives, archives_in, natural, present
from data_prep.reading.clip_talks import FORM, checked, talk
from data_prep.reading.tables import json_rows, layout
from data_prep.rows import Clip, Frames, Inputs, Picture, Row, Skip, Unfit
from vlm.contracts.errors import InputError
from vlm.contracts.ranges import PositiveFloat
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Origin

PICTURES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Vista:
    """Rows of `<task>/<task>.json` of each task, its clips in the tars beside it.

    tasks: folders of the set.   archives: patterns of the tars, which are not compressed.
    rate: frames a second at which the publisher took the frames out; the set does not tell it.
    partial: whether rows whose clip is in none of the tars that are there are left out without a limit.
    """

    __pydantic_config__: ClassVar = STRICT
    tasks: list[str]
    archives: list[str]
    rate: PositiveFloat
    partial: bool
    license: str

    def total(self, inputs: Inputs) -> int | None:
        return None

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """Raises: InputError for a file of another form, and for a tar that is damaged or compressed."""
        for task in self.tasks:
            home = inputs.only() / task
            path = home / f"{task}.json"
            if not path.is_file():
                raise InputError(f"{path} is missing; put the task there, or choose some with source.reader.tasks=[…]")
            if layout(path) != "array":
                raise InputError(f"{path} holds one JSON object a line; expected one JSON array of {FORM}")
            tars = archives_in(home, self.archives)
            if not tars:
                raise InputError(f"{home} holds no tar {' or '.join(self.archives)}; put one or more there")
            inputs.note(path)
            held = _Held(Archives(inputs, tars))
            for number, content in json_rows(path, FORM):
                origin = Origin(path.name, number, str(number))
                where = f"{path} row {number} (from 0)"
                try:
                    row = checked(content, where, first=number == 0, also=set())
                    origin = Origin(path.name, number, str(row["id"]))
                    yield self._row(origin, row, where, held, task)
                except Unfit as fault:
                    yield Skip(None, origin, fault.reason, fault.detail)

    def _row(self, origin: Origin, content: dict[str, Any], where: str, held: _Held, task: str) -> Row:
        messages, repaired = talk(content["conversations"], where)
        clip = self._clip(content["video"].removeprefix("./").rstrip("/"), held)
        return Row(
            None, origin, (clip,), self.license, messages=messages, meta={"task": task}, repaired=tuple(repaired)
        )

    def _clip(self, name: str, held: _Held) -> Clip:
        frames = held.frames(name)
        if not frames:
            return Clip(present(held.archives.find(name), name, self.partial), name)
        pictures = [Picture(present(held.archives.find(one), one, partial=False), one) for one in frames]
        seconds = tuple(number / self.rate for number in range(len(pictures)))
        return Clip(Frames(tuple(pictures), seconds), name)


class _Held:
    """Frames of each clip by its folder, in the order of the numbers in their names."""

    def __init__(self, archives: Archives) -> None:
        self.archives = archives
        self._names: dict[str, list[str]] = {}
        for name in archives:
            path = PurePosixPath(name)
            if path.suffix.lower() in PICTURES:
                self._names.setdefault(str(path.parent), []).append(name)

    def frames(self, folder: str) -> list[str]:
        return sorted(self._names.get(folder, ()), key=natural)
