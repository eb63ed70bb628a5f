"""Which benchmarks a model can be asked at all: one that speaks, or one that compares pictures with texts."""

from __future__ import annotations

from collections.abc import Sequence

from vlm.contracts.benchmark import Question
from vlm.contracts.errors import InputError
from vlm.contracts.settings import BenchmarkSettings
from vlm.evaluation.prompts import ask


def refuse_unsuited(settings: BenchmarkSettings, questions: Sequence[Question], speaks: bool) -> None:
    """speaks: whether the model has a language model; otherwise it has a text tower.

    Raises: InputError for a benchmark that the model cannot answer, with the reason, before anything is asked.
    """
    name = settings.name
    if speaks:
        if settings.decoding == "similarity":
            raise InputError(
                f"benchmark {name}: it compares pictures with texts by their vectors, and this model has no text tower; "
                "evaluate a model that phase=contrastive has trained"
            )
        return
    if settings.decoding in ("greedy", "sampled"):
        raise InputError(
            f"benchmark {name}: decoding={settings.decoding} lets a model speak, and this one has no language model: it "
            "compares pictures with texts; choose a benchmark of decoding similarity, or of likelihood with named answers"
        )
    if settings.decoding == "likelihood" and settings.candidates in (None, "letters"):
        raise InputError(
            f"benchmark {name}: letters say nothing about a picture, and this model sees no question beside them; set "
            f"change.{name}.candidates=options"
        )
    if settings.decoding == "likelihood":
        for question in questions:
            _refuse_question(settings, question)


def _refuse_question(settings: BenchmarkSettings, question: Question) -> None:
    where = f"benchmark {settings.name}: question {question.id}"
    if len(question.pictures) != 1:
        raise InputError(
            f"{where} shows {len(question.pictures)} pictures; this model compares one picture with texts, so choose a "
            "benchmark of single pictures"
        )
    text = "".join(part for part in ask(question, settings).parts if isinstance(part, str))
    if text.strip():
        raise InputError(
            f"{where} asks {text!r:.60}, and this model reads no question: it compares the picture with the answers "
            f"alone. Choose another benchmark, or set change.{settings.name}.prompt='' if the answers say it all"
        )
