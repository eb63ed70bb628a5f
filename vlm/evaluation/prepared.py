"""A benchmark by its configuration: settings, the reader of its files, and the questions that are asked."""

from __future__ import annotations

from dataclasses import dataclass

from vlm.contracts.benchmark import Question, Reader, Scorer
from vlm.contracts.errors import InputError
from vlm.contracts.settings import BenchmarkSettings
from vlm.evaluation.prompts import ask
from vlm.evaluation.score import scorer
from vlm.evaluation.subset import subset


@dataclass(frozen=True)
class Prepared:
    """A benchmark's settings, and the reader of its files."""

    settings: BenchmarkSettings
    reader: Reader

    @property
    def scorer(self) -> Scorer:
        """Raises: InputError for a variant that it does not have."""
        found, settings = scorer(self.settings.scorer), self.settings
        unknown = [name for name in settings.variants if name not in found.cases]
        if unknown:
            known = ", ".join(found.cases)
            raise InputError(f"benchmark {settings.name}: variants: {', '.join(unknown)} is unknown; choose of {known}")
        return found

    def questions(self, limit: int | None, seed: int) -> list[Question]:
        """Those that are asked, each of which can be put. Raises: InputError saying how to get the files."""
        try:
            everything = list(self.reader.questions())
        except InputError as error:
            raise InputError(f"benchmark {self.settings.name}: {error}\n  its files: {self.settings.get}") from error
        if not everything:
            raise InputError(f"benchmark {self.settings.name}: its files hold no question; {self.settings.get}")
        try:
            questions = subset(everything, limit, seed, self.scorer.whole_groups)
        except InputError as error:
            raise InputError(f"benchmark {self.settings.name}: {error}") from error
        for question in questions:  # before anything expensive starts
            ask(question, self.settings)
        return questions
