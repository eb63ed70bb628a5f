"""A sample as a model reads it: its text row, cut where loss begins and ends. No rule of layout is written here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import groupby
from pathlib import Path

from PIL import Image

from vlm.contracts.batch import IGNORE, VISUAL
from vlm.contracts.errors import InputError, Mismatch
from vlm.contracts.sample import Medium, Sample
from vlm.contracts.vision import FixedCount, VisionSpec
from vlm.data.chat_jinja import read_template
from vlm.data.chat_template import ChatTemplate
from vlm.data.loader import as_conversation
from vlm.data.processor import Processor
from vlm.data.template import Template
from vlm.data.tokens import FolderTokenizer, TextTokenizer, TrainedBPE
from vlm.data.views import Resize

LENGTH = 1 << 30  # tokens: nothing is cut, so that the page shows all of it
VOCABULARY = 4096  # of the tokenizer that is learned for a page
DATE = "2025-01-01"  # for templates that ask for today
SIDE = 16  # pixels of a view that nobody looks at


@dataclass(frozen=True)
class Stretch:
    """Neighbouring tokens of one kind. kind: "loss", "context" or "picture"."""

    kind: str
    text: str
    tokens: int


@dataclass(frozen=True)
class Segment:
    """What sees itself causally; a branch sees the shared beginning before it. name: "" if there is only one."""

    name: str
    stretches: list[Stretch]


@dataclass(frozen=True)
class Reading:
    """segments: in order.   loss, tokens: how many carry loss, and of how many.   fault: why training would skip it."""

    segments: list[Segment]
    loss: int = 0
    tokens: int = 0
    fault: str = ""


class Reader:
    """The processor of training behind a tokenizer. name: of tokenizer and template, for people."""

    def __init__(self, tokenizer: TextTokenizer, template: Template, name: str) -> None:
        plain = [0.5, 0.5, 0.5]
        spec = VisionSpec(width=1, count=FixedCount(1))  # one token a picture: how many it is, the model decides
        self.processor = Processor(Resize(SIDE, plain, plain), tokenizer, template, spec, LENGTH)
        self.tokenizer, self.name = tokenizer, name

    def read(self, sample: Sample) -> Reading:
        """The row of a sample as training lays it out, both answers of a pair included."""
        conversation = as_conversation(_still(sample), [""], 0)
        try:
            example = self.processor.example(conversation, pair=sample.rejected is not None)
        except InputError as error:
            return Reading([], fault=str(error))
        segments, labels = [], example.labels.tolist()
        places = [
            (segment, "picture" if id == VISUAL else "context" if label == IGNORE else "loss", id)
            for segment, id, label in zip(example.segment.tolist(), example.ids.tolist(), labels, strict=True)
        ]
        names = _names(example.parent, sample.rejected is not None)
        for number, members in groupby(places, key=lambda place: place[0]):
            stretches = [
                self._stretch(kind, [id for _, _, id in run])
                for kind, run in groupby(members, key=lambda place: place[1])
            ]
            segments.append(Segment(names[number], stretches))
        return Reading(segments, sum(label != IGNORE for label in labels), len(labels))

    def _stretch(self, kind: str, ids: list[int]) -> Stretch:
        if kind == "picture":
            return Stretch(kind, "", len(ids))
        assert self.tokenizer.engine is not None
        return Stretch(kind, self.tokenizer.engine.decode(ids, skip_special_tokens=False), len(ids))


def _still(sample: Sample) -> Sample:
    """With a plain picture for each clip: how many places its frames take, the model decides."""
    if all(medium.type == "image" for medium in sample.media):
        return sample
    stream = BytesIO()
    Image.new("L", (SIDE, SIDE)).save(stream, "PNG")
    plain = stream.getvalue()
    media = (m if m.type == "image" else Medium("image", plain, m.sha256) for m in sample.media)
    return replace(sample, media=tuple(media))


def _names(parent: tuple[int, ...], is_pair: bool) -> list[str]:
    if len(parent) == 1:
        return [""]
    whose = "both answers" if is_pair else "all questions"
    shared = [f"shared by {whose}; its last token stands again at the head of each"] if 0 in parent else []
    branches = len(parent) - len(shared)
    return [*shared, *(["chosen", "rejected"] if is_pair else [f"question {n + 1}" for n in range(branches)])]


def folder_reader(path: Path) -> Reader:
    """The tokenizer of a folder in Hugging Face's form, with its chat template if it has one.

    Raises: InputError if the folder has no tokenizer, or a damaged template.
    """
    try:
        tokenizer = FolderTokenizer(str(path))
    except Mismatch as error:
        raise InputError(f"tokenizer: {error}") from error
    if _has_template(path):
        read_template(str(path))
        return Reader(tokenizer, ChatTemplate(str(path), LENGTH, DATE), f"tokenizer and chat template of {path.name}")  # type: ignore[arg-type]  # both lay out rows
    end = tokenizer.names.get("eos_token")
    if end is None:
        raise InputError(f"tokenizer: {path} names no eos_token in tokenizer_config.json; add it, or a chat template")
    begin = tokenizer.names.get("bos_token", end)
    return Reader(tokenizer, Template(begin, end, True, LENGTH), f"tokenizer of {path.name}, plain template (it has no chat template)")  # fmt: skip


def learned_reader(texts: Iterable[str]) -> Reader:
    """Without a folder: the project's own byte pairs, learned from the texts of the page, and its plain template."""
    tokenizer = TrainedBPE(VOCABULARY, lowercase=False)
    tokenizer.fit(texts)
    name = "byte pairs learned from this page, plain template (name a model's folder with tokenizer=FOLDER)"
    return Reader(tokenizer, Template("<bos>", "<eos>", True, LENGTH), name)


def _has_template(path: Path) -> bool:
    settings = path / "tokenizer_config.json"
    if (path / "chat_template.jinja").is_file():
        return True
    try:
        return settings.is_file() and bool(json.loads(settings.read_text("utf-8")).get("chat_template"))
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"tokenizer: {settings} cannot be read ({error}); copy it again") from error
