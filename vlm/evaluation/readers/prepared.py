"""This project's own prepared splits as benchmarks: their answers, captions and facts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from vlm.contracts.benchmark import Picture, Question
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Sample, Turn
from vlm.data.shards import INDEX, ShardSet
from vlm.evaluation.readers.rows import check_counts


@dataclass(frozen=True)
class _Prepared(ABC):
    """folder: <set>/<split> of a prepared set.   expected: questions."""

    folder: str
    expected: dict[str, int] | None = None

    def files(self) -> list[str]:
        return [INDEX, *(entry["name"] for entry in ShardSet(self.folder).manifest["shards"])]

    def questions(self) -> Iterator[Question]:
        """Raises: InputError for a split that is not there, is unfinished, or holds something else."""
        shards = ShardSet(self.folder)
        found = [question for row in range(len(shards)) for question in self._of(shards, row)]
        check_counts(self.folder, {"questions": len(found)}, self.expected)
        yield from found

    @abstractmethod
    def _of(self, shards: ShardSet, row: int) -> list[Question]:
        """The questions of one row."""


@dataclass(frozen=True)
class Answers(_Prepared):
    """Questions with one answer each, such as the names of digits.

    names: all answers that there are, None = not told.   question: asked where the row has none.
    An id is the sample's key, or "<key>/0" where several questions are asked about its picture.
    """

    names: list[str] | None = None
    question: str = ""

    def _of(self, shards: ShardSet, row: int) -> list[Question]:
        sample = shards.text(row)
        pairs = _pairs(sample, self.folder)
        pictures = _pictures(shards, row, sample)
        questions = []
        for number, (asked, replied) in enumerate(pairs):
            text, answer = _text(asked) or self.question, _text(replied)
            _check_name(self.folder, sample.key, answer, self.names)
            reference = {"answer": answer}
            types = sample.meta.get("types")
            if types:
                reference["answer_type"] = types[number]
            id = sample.key if len(pairs) == 1 else f"{sample.key}/{number}"
            questions.append(Question(id, sample.key, text, reference, pictures))
        return questions


@dataclass(frozen=True)
class Captions(_Prepared):
    """Captions as gold data: all that the source has, else the one that trains."""

    def _of(self, shards: ShardSet, row: int) -> list[Question]:
        sample = shards.text(row)
        texts = sample.meta.get("captions") or [_text(sample.turns[-1])]
        return [Question(sample.key, sample.key, "", list(texts), _pictures(shards, row, sample))]


@dataclass(frozen=True)
class Classes(_Prepared):
    """Captions as names of classes. names: all that there are, None = not told."""

    names: list[str] | None = None

    def _of(self, shards: ShardSet, row: int) -> list[Question]:
        sample = shards.text(row)
        label = _text(sample.turns[-1])
        _check_name(self.folder, sample.key, label, self.names)
        return [Question(sample.key, sample.key, "", {"label": label}, _pictures(shards, row, sample))]


@dataclass(frozen=True)
class Facts(_Prepared):
    """What is known of each picture, by keys of the rows' `meta`, such as colour and shape.

    values: key -> all values that it may have.
    """

    values: dict[str, list[str]] = field(default_factory=dict)

    def _of(self, shards: ShardSet, row: int) -> list[Question]:
        sample = shards.text(row)
        facts = {key: sample.meta.get(key) for key in self.values}
        for key, value in facts.items():
            if value not in self.values[key]:
                raise InputError(
                    f"{self.folder} {sample.key}: {key} is {value!r:.60}, none of {', '.join(self.values[key])}; correct "
                    "reader.values, or prepare a set that knows it"
                )
        return [Question(sample.key, sample.key, "", facts, _pictures(shards, row, sample))]


def _check_name(folder: str, key: str, found: str, names: list[str] | None) -> None:
    if names is not None and found not in names:
        raise InputError(f"{folder} {key}: {found!r:.60} is none of {', '.join(names)}; correct reader.names")


def _pairs(sample: Sample, folder: str) -> list[tuple[Turn, Turn]]:
    """Each question with its answer. Raises: InputError where earlier answers belong to the question."""
    turns = sample.turns
    if len(turns) % 2 or [turn.role for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
        raise InputError(f"{folder} {sample.key}: its turns are not questions with one answer each; choose another set")
    if len(turns) > 2 and not sample.meta.get("independent"):
        raise InputError(f"{folder} {sample.key} is a conversation; single questions are needed, so choose another set")
    return list(zip(turns[0::2], turns[1::2], strict=True))


def _text(turn: Turn) -> str:
    return "".join(part for part in turn.parts if isinstance(part, str))


def _pictures(shards: ShardSet, row: int, sample: Sample) -> tuple[Picture, ...]:
    """Identified by the sha256 of what is stored, so the same bytes in two rows are one picture."""
    media = enumerate(sample.media)
    return tuple(Picture(medium.sha256, partial(_stored, shards, row, number)) for number, medium in media)


def _stored(shards: ShardSet, row: int, number: int) -> bytes:
    medium = shards[row].media[number]
    if medium.type != "image":
        raise InputError(f"{shards.directory} row {row} shows a clip, and this benchmark is one of pictures")
    return medium.data
