"""A benchmark by its configuration: settings, the reader of its files, and the questions that are asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from vlm.contracts.benchmark import Question, Reader, Scorer
from vlm.contracts.errors import InputError
from vlm.contracts.settings import BenchmarkSettings
from vlm.evaluation.prompts import ask
from vlm.evaluation.score import scorer
from vlm.evaluation.subset import subset


@dataclass(frozen=True)
class Prepared:
    """A benchmark's settings, the reader of its files, and which settings are not those of conf/benchmark."""

    settings: BenchmarkSettings
    reader: Reader
    changed: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def everything(self) -> list[Question]:
        """All questions of its files. Raises: InputError saying how to get files that are missing."""
        try:
            found = list(self.reader.questions())
        except InputError as error:
            raise InputError(f"benchmark {self.settings.name}: {error}\n  its files: {self.settings.get}") from error
        if not found:
            raise InputError(f"benchmark {self.settings.name}: its files hold no question; {self.settings.get}")
        return (
            found
            if self.settings.draws == 1
            else [again for one in found for again in _drawn(one, self.settings.draws)]
        )

    @property
    def count(self) -> int:
        return len(self.everything)

    @property
    def scorer(self) -> Scorer:
        """Raises: InputError for a variant that it does not have."""
        found, settings = scorer(self.settings.scorer), self.settings
        unknown = [name for name in settings.variants if name not in found.cases]
        if unknown:
            known = ", ".join(found.cases)
            raise InputError(f"benchmark {settings.name}: variants: {', '.join(unknown)} is unknown; choose of {known}")
        return found

    def questions(self, limit: int | None = None, seed: int = 0) -> list[Question]:
        """Those that are asked; each of them can be put, and its gold data be scored.

        Raises: InputError, before anything expensive starts.
        """
        self._refuse_idle()
        everything = self.everything
        try:
            questions = subset(everything, limit, seed, self.scorer.whole_groups)
            for question in questions:
                ask(question, self.settings)
                self._refuse_gold(question)
        except InputError as error:
            raise InputError(f"benchmark {self.settings.name}: {error}") from error
        return questions

    def _refuse_idle(self) -> None:
        """Raises: InputError for keys of sampling where nothing is drawn."""
        settings = self.settings
        given = {"temperature": settings.temperature != 1.0, "draws": settings.draws != 1}
        idle = [key for key, is_given in given.items() if is_given]
        if idle and settings.decoding != "sampled":
            raise InputError(
                f"benchmark {settings.name}: {', '.join(idle)} means nothing to decoding={settings.decoding}; leave it out, "
                "or set decoding=sampled"
            )

    def _refuse_gold(self, question: Question) -> None:
        """What this scorer cannot read, or what results cannot be split by."""
        reference, scorer = question.reference, self.scorer
        for key in self.settings.split_by:
            value = reference.get(key) if isinstance(reference, Mapping) else None
            if not isinstance(value, str | int | bool):
                known = ", ".join(sorted(map(str, reference))) if isinstance(reference, Mapping) else "no keys"
                raise InputError(f"split_by: question {question.id} has no plain {key!r}; its gold data have {known}")
        try:
            for variant in self.settings.variants:
                scorer.cases[variant]("", reference)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"question {question.id}: scorer {self.settings.scorer} cannot read its gold data {str(reference)[:120]} "
                f"({type(error).__name__}: {error})"
            ) from error


def _drawn(question: Question, draws: int) -> Iterator[Question]:
    """The same question several times, each with an id, and so with random numbers, of its own; one group."""
    return (replace(question, id=f"{question.id}/draw {number}") for number in range(draws))
