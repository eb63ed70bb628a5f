"""Open medical answers as bags of words, as LLaVA-Med's evaluation compares them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

from vlm.evaluation.scorers.normalise import normalise


@lru_cache(maxsize=64)  # a constant answer of a benchmark may be as long as all its answers
def normal(text: str) -> str:
    """The official VQA form, without commas."""
    return normalise(text).replace(",", "")


@lru_cache(maxsize=64)
def words(text: str) -> Mapping[str, int]:
    """Word -> how often the normal form has it."""
    return MappingProxyType(Counter(normal(text).lower().split()))


def overlap(prediction: str, gold: str) -> dict[str, float]:
    """exact_match (gold words found / words said), f1, precision, recall, bleu_1; all 0 where either is empty.

    How often a shared word counts is taken from the prediction, so repeating a right word raises precision and recall.
    Source: LLaVA-Med, llava/eval/eval_metrics.
    """
    said, meant = words(prediction), words(gold)
    names = ("exact_match", "f1", "precision", "recall", "bleu_1")
    if not said or not meant:
        return dict.fromkeys(names, 0.0)
    length, gold_length = sum(said.values()), sum(meant.values())
    shared = sum(said.get(word, 0) for word in meant)
    missing = sum(count for word, count in meant.items() if word not in said)
    precision, recall = shared / length, shared / (shared + missing)
    f1 = 2 * precision * recall / (precision + recall) if shared else 0.0
    clipped = sum(min(count, said.get(word, 0)) for word, count in meant.items())
    brevity = 1.0 if length > gold_length else math.exp(1 - gold_length / length)
    found = sum(word in said for word in meant) / length
    return dict(zip(names, (found, f1, precision, recall, brevity * clipped / length), strict=True))


def candidate(prediction: str, candidates: Sequence[object]) -> str:
    """The candidate answer with the largest share of its distinct words in the prediction, the first of equal ones."""
    said = words(prediction)
    best, best_share = "", -1.0
    for text, of_text in _distinct(tuple(map(str, candidates))):
        share = len(said.keys() & of_text) / len(of_text) if of_text else 0.0
        if share > best_share:
            best, best_share = text, share
    return best


@lru_cache(maxsize=4)
def _distinct(candidates: tuple[str, ...]) -> list[tuple[str, frozenset[str]]]:
    return [(text, frozenset(normal(text).lower().split())) for text in candidates]
