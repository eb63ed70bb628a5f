"""CIDEr-D, BLEU and ROUGE-L of tokenised captions, image by image, so that images can be resampled."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import LCSseq

ORDER = 4  # n-grams of one to four words
LENGTH_SIGMA = 6.0  # of CIDEr-D's penalty for another length, words
CIDER_SCALE = 10.0
ROUGE_BETA = 1.2  # weight of recall against precision
SMALL, TINY = 1e-9, 1e-15  # of the public BLEU code, against division by zero

Ngram = tuple[str, ...]


def bleu_columns(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """[n, 10]: of each image the matching 1-4-grams, all its 1-4-grams, its length and the nearest reference length.

    A match counts as often as the reference that has it most. Their sums over any images are what `bleu` takes.
    """
    columns = np.zeros((len(predictions), 2 * ORDER + 2))
    for row, (said, meant) in enumerate(zip(predictions, references, strict=True)):
        words = said.split()
        counted = [_counts(text.split()) for text in meant]
        lengths = [len(text.split()) for text in meant]
        for size in range(1, ORDER + 1):
            columns[row, ORDER + size - 1] = max(0, len(words) - size + 1)
        for ngram, count in _counts(words).items():
            columns[row, len(ngram) - 1] += min(count, max(each.get(ngram, 0) for each in counted))
        columns[row, -2] = len(words)
        columns[row, -1] = min(lengths, key=lambda length: (abs(length - len(words)), length))
    return columns


def bleu(sums: np.ndarray, size: int) -> np.ndarray:
    """BLEU of 1..size-grams from sums of columns [..., 10] -> [...], 0..1. Source: Papineni et al. 2002, pycocoevalcap."""
    precisions = (sums[..., :size] + TINY) / (sums[..., ORDER : ORDER + size] + SMALL)
    ratio = (sums[..., -2] + TINY) / (sums[..., -1] + SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return np.prod(precisions, axis=-1) ** (1 / size) * brevity


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """F of the longest common subsequence, best precision and best recall over the references. Source: Lin 2004."""
    said = prediction.split(" ")  # as the public code: an empty caption is one empty word
    precision = recall = 0.0
    for reference in references:
        meant = reference.split(" ")
        common = LCSseq.similarity(said, meant)
        precision, recall = max(precision, common / len(said)), max(recall, common / len(meant))
    if not precision or not recall:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def cider(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """CIDEr-D of each image [n], 0..10; how rare an n-gram is follows from the references of this very set.

    Hence it is 0 for a single image. Source: Vedantam et al. 2015, pycocoevalcap.
    """
    rarity = Rarity(references)
    scores = np.zeros(len(predictions))
    for row, (said, meant) in enumerate(zip(predictions, references, strict=True)):
        answer = rarity.vector(said)
        scores[row] = sum(_likeness(answer, rarity.vector(text)) for text in meant) / len(meant) * CIDER_SCALE
    return scores


def typical(references: Sequence[Sequence[str]]) -> tuple[int, int]:
    """Image and place of the reference caption that is most like all others: the best constant answer by its words.

    Likeness is CIDEr's without clipping and length, so that all captions are compared with one sum of vectors.
    """
    rarity = Rarity(references)
    total: dict[Ngram, float] = {}
    vectors = [[rarity.vector(text) for text in texts] for texts in references]
    for vector in (vector for texts in vectors for vector in texts):
        for ngram, weight in vector.weights.items():
            total[ngram] = total.get(ngram, 0.0) + weight / vector.norms[len(ngram) - 1]
    best, place = -1.0, (0, 0)
    for image, texts in enumerate(vectors):
        for number, vector in enumerate(texts):
            likeness = sum(
                weight / vector.norms[len(ngram) - 1] * total[ngram] for ngram, weight in vector.weights.items()
            )
            if likeness > best:
                best, place = likeness, (image, number)
    return place


@dataclass(frozen=True)
class Vector:
    """weights: n-gram -> how often times how rare, without zeros.   norms: of each n.   length: in 2-grams."""

    weights: Mapping[Ngram, float]
    norms: list[float]
    length: int


class Rarity:
    """How rare an n-gram is: log(images / images whose references have it)."""

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        self.images = math.log(len(references)) if references else 0.0
        self.known: Counter[Ngram] = Counter()
        for texts in references:
            self.known.update({ngram for text in texts for ngram in _counts(text.split())})

    def vector(self, text: str) -> Vector:
        words = text.split()
        weights, squares = {}, [0.0] * ORDER
        for ngram, count in _counts(words).items():
            weight = count * (self.images - math.log(max(1, self.known[ngram])))
            if weight:
                weights[ngram] = weight
                squares[len(ngram) - 1] += weight * weight
        return Vector(weights, [math.sqrt(square) for square in squares], max(0, len(words) - 1))


def _likeness(answer: Vector, reference: Vector) -> float:
    """Mean over n of the cosine with counts clipped at the reference's, less for another length."""
    products = [0.0] * ORDER
    for ngram, weight in reference.weights.items():
        if ngram in answer.weights:
            products[len(ngram) - 1] += min(answer.weights[ngram], weight) * weight
    cosines = (
        product / (one * other)
        for product, one, other in zip(products, answer.norms, reference.norms, strict=True)
        if one and other
    )
    gap = answer.length - reference.length
    return sum(cosines) / ORDER * math.exp(-(gap**2) / (2 * LENGTH_SIGMA**2))


def _counts(words: Sequence[str]) -> Counter[Ngram]:
    """Every 1-4-gram and how often it occurs."""
    return Counter(
        tuple(words[begin : begin + size]) for size in range(1, ORDER + 1) for begin in range(len(words) - size + 1)
    )
