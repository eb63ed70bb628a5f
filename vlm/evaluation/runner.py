"""One benchmark, one model: every condition answered, a stop gone on from, scores written beside the answers."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from vlm.contracts.benchmark import Picture, Question, Reader, Reply
from vlm.contracts.errors import InputError
from vlm.contracts.writing import finite
from vlm.evaluation.conditions import SEEN, Blank, other_pictures, shuffled
from vlm.evaluation.contamination import Training
from vlm.evaluation.prepared import Prepared
from vlm.evaluation.prior import prior_replies
from vlm.evaluation.prompts import Asked, ask, options_of, rotated
from vlm.evaluation.records import (
    PICTURES,
    SCORED,
    answered,
    write_json,
    write_picture,
    write_predictions,
    write_questions,
)
from vlm.evaluation.results import headline, results
from vlm.evaluation.scorers.retrieval import TEXT_TO_IMAGE
from vlm.evaluation.sheets import Sheet
from vlm.evaluation.subset import share, subset
from vlm.evaluation.suited import refuse_unsuited
from vlm.evaluation.thumbnails import thumbnail

if TYPE_CHECKING:
    from vlm.evaluation.recognised import Recognised

log = logging.getLogger(__name__)
SCORING = ("variants", "split_by", "get", "license", "controls", "prior")  # keys that change no answer
DRAWING = ("temperature", "draws")  # keys of sampled answers alone


@dataclass(frozen=True)
class Asking:
    """How every benchmark of one evaluation is asked.

    model: its folder, for people.   weights: its fingerprint.   data: folder of prepared sets.   shifts: questions of
    choices that are asked again with moved options and without letters.   speaks: whether the model has a language
    model.   inline: whether its template can place pictures inside a text.   note: what is to be said with every result.   recognised: reads text in pictures.
    part, parts: which share this process answers.
    """

    model: str
    weights: str
    data: Path
    limit: int | None
    seed: int
    shifts: int
    token_budget: int | None
    speaks: bool = True
    inline: bool = True
    note: str | None = None
    recognised: Recognised | None = None
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Condition:
    """Questions, as the benchmark has them, and what is changed about each before it is asked."""

    name: str
    questions: Sequence[Question]
    change: Callable[[Question], Question] = lambda question: question


class Task:
    """A benchmark that is ready to be asked: its files are read and checked, nothing has been answered yet."""

    def __init__(self, prepared: Prepared, asking: Asking, folder: Path) -> None:
        settings = prepared.settings
        self.settings, self.asking, self.scorer = settings, asking, prepared.scorer
        self.questions, count = prepared.questions(asking.limit, asking.seed), prepared.count
        refuse_unsuited(settings, self.questions, asking.speaks)
        # A limit that leaves nothing out is none: the same questions are not asked twice under two names.
        self._limit = asking.limit if len(self.questions) < count else None
        # Shared out by the pictures of the plain questions: all grey ones are one picture.
        self._own = {question.id for question in share(self.questions, asking.part, asking.parts)}
        notes = {"model": asking.model, "variants": settings.variants, "split_by": settings.split_by}
        notes |= {"changed": dict(prepared.changed), "note": asking.note}
        self.sheet = Sheet(folder, settings.name, self._identity(prepared.reader), notes)

    def _identity(self, reader: Reader) -> dict[str, Any]:
        """What decides the answers."""
        asking = self.asking
        idle = SCORING if self.settings.decoding == "sampled" else (*SCORING, *DRAWING)
        return {
            "benchmark": {key: value for key, value in asdict(self.settings).items() if key not in idle},
            "weights": asking.weights,
            "decoding": self.settings.decoding,
            "max_new_tokens": self.settings.max_new_tokens,
            "prompt": self.settings.prompt,
            "limit": self._limit,
            "seed": asking.seed,
            "ocr": asking.recognised.engine if asking.recognised else "none",
            "token_budget": asking.token_budget,
            "data": {name: sha256(Path(reader.folder) / name) for name in reader.files()},
        }

    @cached_property
    def conditions(self) -> list[Condition]:
        """What is asked, the plain questions first."""
        found = [Condition(SEEN, self.questions)]
        shown = any(question.pictures for question in self.questions)
        if shown and "blank" in self.settings.controls:
            found.append(Condition("blank", self.questions, Blank()))
        if shown and "shuffled" in self.settings.controls:
            found.append(Condition("shuffled", self.questions, lambda question: shuffled(question, self._others)))
        return [*found, *self._bias_checks()]

    @cached_property
    def _others(self) -> dict[str, Picture]:
        return other_pictures(self.questions, self.asking.seed)  # which reads every picture once

    def _bias_checks(self) -> list[Condition]:
        """Choices again with moved options and without letters, where their gold data name a letter."""
        lettered = [question for question in self.questions if len(options_of(question.reference) or ()) > 1]
        spoken = self.settings.decoding != "likelihood"
        by_letter = spoken or self.settings.candidates in (None, "letters")
        if not lettered or not by_letter or not self.asking.shifts or self.scorer.whole_groups:
            return []
        again = subset(lettered, self.asking.shifts, self.asking.seed, whole_groups=False)
        found = [
            Condition(f"shift{shift}", [q for q in again if len(q.options) > shift], partial(rotated, shift=shift))
            for shift in range(1, max(len(question.options) for question in again))
        ]
        return [*found, Condition("unlettered", again)] if spoken else found

    def missing(self, condition: Condition) -> list[Question]:
        """Those of this process's share that have no answer yet, as they are."""
        known = self.sheet.replies(condition.name)
        return [question for question in condition.questions if question.id in self._own and question.id not in known]

    @property
    def is_answered(self) -> bool:
        return not any(self.missing(condition) for condition in self.conditions)

    def answer(self, answering: Callable[..., Iterator[list[Reply]]]) -> None:
        """Ask what has no answer yet. answering: an `Answering` of this benchmark.

        Raises: InputError, RunError; what was answered before is kept.
        """
        part = f"{self.asking.part}/{self.asking.parts}"
        for condition in self.conditions:
            missing = [condition.change(question) for question in self.missing(condition)]
            if not missing:
                continue
            put = partial(self._put, lettered=condition.name != "unlettered")
            name = f"{self.settings.name}, {condition.name}"
            with self.sheet.writer(condition.name, part) as writer, tqdm(
                total=len(missing), desc=name, unit="question", leave=False, disable=None
            ) as bar:  # fmt: skip
                log.info("%s: %d questions", name, len(missing))
                for replies in answering(missing, put):
                    writer.write(replies)
                    bar.update(len(replies))

    def _put(self, question: Question, lettered: bool) -> Asked:
        recognised = self.asking.recognised(question.pictures) if self.asking.recognised else None
        return ask(question, self.settings, recognised, lettered, self.asking.inline)

    def score(self, training: Training) -> list[dict[str, Any]]:
        """Entries of results.json, kept with the sheet. Every condition must be answered."""
        if self.settings.prior is not None:
            self._write_prior(self.asking.data / self.settings.prior.set / self.settings.prior.split)
        self.sheet.describe()  # with today's variants and splits, also where nothing was left to ask
        write_questions(self.sheet, self.questions, [self._put(question, True) for question in self.questions])
        given = answered(self.sheet.path)
        # Not what an earlier command asked besides.
        asked = {"prior", *(condition.name for condition in self.conditions)}
        given = replace(given, replies={name: said for name, said in given.replies.items() if name in asked})
        write_predictions(self.sheet.path, given)
        entries = results(given)
        rows = given.scored(given.variants[0])
        told = finite(training.report(self.questions, rows, partial(headline, self.scorer)))
        entries[0]["details"]["trained_on"] = told
        if self.asking.note and any(question.text for question in self.questions):
            for entry in entries:
                entry["details"]["warnings"].append(self.asking.note)
        if told.get("trained_on"):
            entries[0]["details"]["warnings"].append(
                f"{told['trained_on']} of {told['pictures']} pictures were trained on; "
                f"{told['rest_n']} questions are about others"
            )
        write_json(self.sheet.path / SCORED, entries)
        return entries

    def keep_pictures(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Of the errors that a page shows. rows: lines of predictions.jsonl."""
        by_id = {question.id: question for question in self.questions}
        shown = []
        for row in rows:
            pictures = [picture for picture in _shown(by_id[row["id"]]) if picture.type == "image"]
            if pictures:
                name = f"{self.sheet.path.name}-{len(shown):02d}.png"
                picture = thumbnail(pictures[0].read(), pictures[0].id)
                write_picture(self.sheet.path.parents[1] / "pictures" / name, picture)
                shown.append({"id": row["id"], "file": name})
        write_json(self.sheet.path / PICTURES, shown)

    def _write_prior(self, directory: Path) -> None:
        if not (directory / "manifest.json").is_file():
            log.warning(
                "%s: %s is not prepared here, so there is no baseline of training answers; make data SOURCE=%s gets it",
                self.settings.name, directory, directory.parent.name,
            )  # fmt: skip
            return
        with self.sheet.writer("prior", "0/1", anew=True) as writer:  # the set may have been prepared anew
            writer.write(prior_replies(self.questions, directory))


def _shown(question: Question) -> Sequence[Picture]:
    """Its pictures; of a search among many the right ones."""
    searched = isinstance(question.reference, Mapping) and question.reference.get("direction") == TEXT_TO_IMAGE
    return [question.pictures[place] for place in question.reference["right"]] if searched else question.pictures


def sha256(path: Path) -> str:
    """Raises: InputError if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
