"""Rows and gold data that several tests of the scorers use."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np

from vlm.contracts.benchmark import Measure, Scored
from vlm.evaluation.score import score_rows, scorer

CHOICES = ("mmbench", "scienceqa", "ai2d", "mvbench", "videomme", "pmc_vqa")
YES_NO = ("pope", "mme")
OPEN = ("vqav2", "textvqa")


def scored(
    benchmark: str,
    predictions: Sequence[str],
    references: Sequence[Any],
    variant: str | None = None,
    groups: Sequence[str] | None = None,
) -> list[Scored]:
    found = scorer(benchmark)
    ids = [str(number) for number in range(len(references))]
    return score_rows(found, variant or found.default, ids, groups or ids, predictions, references)


def figures(benchmark: str, rows: Sequence[Scored]) -> dict[str, float]:
    """Every measure over all rows."""
    return {measure.name: figure(measure) for measure in scorer(benchmark).measures(rows)}


def figure(measure: Measure) -> float:
    return float(measure.combine(np.asarray(measure.columns).sum(0)))


def circular(options: Sequence[str], gold: int, question: int = 7) -> list[dict[str, Any]]:
    """A question of MMBench under every shift of its options."""
    found = []
    for shift in range(len(options)):
        texts = [*options[shift:], *options[:shift]]
        letter = ascii_uppercase[(gold - shift) % len(options)]
        named = dict(zip(ascii_uppercase, texts, strict=False))
        found.append({"options": named, "gold": letter, "index": question + shift * 1_000_000, "category": "c"})
    return found


def choice(benchmark: str, options: Sequence[str], gold: str) -> dict[str, Any]:
    """Gold data of one question in the benchmark's own shape."""
    key = {"scienceqa": "choices", "mvbench": "candidates"}.get(benchmark, "options")
    named = dict(zip(ascii_uppercase, options, strict=False)) if benchmark == "mmbench" else list(options)
    more = {"task": "t", "has_image": True, "duration": "short", "domain": "d", "task_type": "t"}
    return {key: named, "gold": gold, **more}


def pope(labels: Sequence[str], categories: Sequence[str] = ("random",)) -> list[dict[str, Any]]:
    return [
        {"question_id": number, "category": categories[number % len(categories)], "label": label}
        for number, label in enumerate(labels)
    ]


def mme(categories: Sequence[str], pictures: int = 2) -> list[dict[str, Any]]:
    """Two questions a picture; pictures of different categories share their names."""
    return [
        {"category": category, "image": f"{number}.jpg", "question_id": f"{number}.jpg", "answer": answer}
        for category in categories
        for number in range(pictures)
        for answer in ("Yes", "No")
    ]
