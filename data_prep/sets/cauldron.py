"""The Cauldron: fifty sets of pictures and questions in one form, each with the terms of its own publisher."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from data_prep.reading.archives import Folder
from data_prep.reading.tables import parquet_rows, row_count
from data_prep.rows import Inputs, Openable, Picture, Row, Skip, Unfit, question, reply
from vlm.contracts.errors import InputError
from vlm.contracts.ranges import PositiveInt
from vlm.contracts.settings import STRICT
from vlm.data.canonical import Message, Origin

log = logging.getLogger(__name__)
COLUMNS = {"images": "list", "texts": "list"}
FORM = '{"images": [{"bytes", "path"}, …], "texts": [{"user": "…", "assistant": "…", "source": "…"}, …]}'


@dataclass(frozen=True)
class Cauldron:
    """Rows of `<subset>/*.parquet`: all pictures in front, then all pairs of question and answer in their order.

    licenses: subset -> its licence; a folder that is not named here is refused.   without: subsets to leave out.
    roots: subset -> folder of its pictures, for those whose files hold paths alone (okvqa, clevr_math).
    max_pairs: of one sample; a longer row is cut between two pairs, and each piece shows the pictures.
    shuffle_turns: whether the pairs of a row stand in an order drawn by a hash of the row.
    """

    __pydantic_config__: ClassVar = STRICT
    licenses: dict[str, str]
    without: list[str]
    roots: dict[str, str]
    max_pairs: PositiveInt
    shuffle_turns: bool

    def total(self, inputs: Inputs) -> int | None:
        return sum(row_count(path) for _, paths in self._subsets(inputs) for path in paths)

    def rows(self, inputs: Inputs) -> Iterator[Row | Skip]:
        """By subset and file. Raises: InputError for an unknown subset, another form, or pictures that are not there."""
        for subset, paths in self._subsets(inputs):
            if subset in self.without:
                log.warning("%s: left out, as source.reader.without says", subset)
                continue
            root = Folder(inputs, Path(self.roots[subset])) if subset in self.roots else None
            for path in paths:
                if not inputs.dry:  # hashing gigabytes is no trial
                    inputs.note(path)
                for number, content in parquet_rows(path, COLUMNS, FORM):
                    origin = Origin(f"{subset}/{path.name}", number, f"{subset}-{path.stem}-{number}")
                    try:
                        yield from self._pieces(subset, origin, content, root)
                    except Unfit as fault:
                        yield Skip(None, origin, fault.reason, fault.detail)

    def _subsets(self, inputs: Inputs) -> list[tuple[str, list[Path]]]:
        home = inputs.only()
        found = [(folder.name, sorted(folder.glob("*.parquet"))) for folder in sorted(home.glob("*/"))]
        found = [(name, paths) for name, paths in found if paths]
        if not found:
            raise InputError(f"{home} holds no folder SUBSET/*.parquet; put the published folders there")
        if unknown := [name for name, _ in found if name not in self.licenses]:
            raise InputError(
                f"{home} holds {', '.join(unknown)}, whose licence nobody has told; find it out and give it with "
                f"++source.reader.licenses.{unknown[0]}=LICENCE, or move the folder away"
            )
        return found

    def _pieces(self, subset: str, origin: Origin, content: dict[str, Any], root: Folder | None) -> list[Row]:
        pairs = [_pair(entry) for entry in content["texts"] or ()]
        kept = [(asked, answer) for asked, answer in pairs if answer.strip()]
        pictures = tuple(_picture(entry, place, subset, root) for place, entry in enumerate(content["images"] or ()))
        if not pictures:
            raise Unfit("media_missing", "the row has no picture")
        if not kept:
            raise Unfit("text_empty", "no answer has text")
        if self.shuffle_turns:
            kept.sort(key=lambda pair: hashlib.sha256(repr((origin.id, pair)).encode("utf-8", "replace")).digest())
        repaired = ("answer_empty",) * (len(pairs) - len(kept))
        sources = sorted({str(entry.get("source")) for entry in content["texts"] if entry.get("source")})
        return [
            Row(
                None, origin, pictures, self.licenses[subset], messages=_messages(kept[at : at + self.max_pairs], len(pictures)),
                meta={"subset": subset, "sources": sources}, repaired=repaired if at == 0 else (), is_piece=at > 0,
            )
            for at in range(0, len(kept), self.max_pairs)
        ]  # fmt: skip


def _pair(entry: Any) -> tuple[str, str]:
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("user"), str)
        or not isinstance(entry.get("assistant"), str)
    ):
        raise Unfit("row_malformed", f"a pair is {str(entry)[:60]!r}; expected user, assistant and source")
    return entry["user"], entry["assistant"]


def _picture(entry: Any, place: int, subset: str, root: Folder | None) -> Picture:
    if not isinstance(entry, dict) or not {"bytes", "path"} <= set(entry):
        raise InputError(f"{subset}: a picture is {str(entry)[:60]!r}; expected bytes and path")
    name = entry["path"] or f"{place}"
    if entry["bytes"] is not None:
        return Picture(entry["bytes"], name)
    if root is None:
        raise InputError(
            f"{subset}: the files hold the paths of its pictures alone ({name}); name the folder that holds them with "
            f"++source.reader.roots.{subset}=DIR, or leave it out: 'source.reader.without=[{subset}]'"
        )
    found: Openable | None = root.find(name)
    if found is None:
        raise Unfit("media_missing", f"{name} is not in {root.root}")
    return Picture(found, name)


def _messages(pairs: list[tuple[str, str]], pictures: int) -> list[Message]:
    messages = []
    for number, (asked, answer) in enumerate(pairs):
        messages += [question(asked, pictures if number == 0 else 0), reply(answer)]
    return messages
