"""Text that an engine reads in pictures, once a picture, kept beside the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vlm.contracts.benchmark import Picture
from vlm.evaluation.ocr import recogniser
from vlm.evaluation.sheets import end_cut_line, whole_lines


class Recognised:
    """The text in a question's pictures. name: of the engine.   file: keeps what was read, a line a picture.

    engine: its name, version and settings, part of what decides a result.
    Raises: InputError if the engine is not installed.
    """

    def __init__(self, name: str, file: Path) -> None:
        self._read = recogniser(name)
        self.engine = self._read.describe()
        self.file = file
        self._known: dict[str, str] = {}
        for other in sorted(file.parent.glob("recognised-*.jsonl")):  # of all parts
            lines = [json.loads(line) for _, line in whole_lines(other)]
            self._known |= {line["picture"]: line["text"] for line in lines if line["engine"] == self.engine}
        end_cut_line(file)

    def __call__(self, pictures: Sequence[Picture]) -> str:
        texts = [self._text(picture) for picture in pictures if picture.type == "image"]
        return "\n".join(text for text in texts if text)

    def _text(self, picture: Picture) -> str:
        if picture.id not in self._known:
            self._known[picture.id] = self._read(picture.read())
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as file:
                line = {"picture": picture.id, "engine": self.engine, "text": self._known[picture.id]}
                file.write(json.dumps(line) + "\n")
        return self._known[picture.id]
