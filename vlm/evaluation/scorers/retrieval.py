"""Retrieval: which pictures a text finds among all, and which texts a picture finds (R@K).

Ties count against the model: an encoder that gives one vector for everything finds nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vlm.contracts.benchmark import Measure, Scored, Scorer
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.measures import mean_of

TOP = (1, 5, 10)
PUBLISHED_TOP = (1, 3, 5, 10)  # what CLIP_benchmark's rows print, where the gallery holds as many
IMAGE_TO_TEXT, TEXT_TO_IMAGE = "image_to_text", "text_to_image"


def ranks(similarities: ArrayLike, image_of_text: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wrong items that score at least as high as the right one; 0 is found first.

    similarities [texts, images].   image_of_text [texts]: column of the picture that a text belongs to.
    Returns: of each text among pictures [texts]; of each picture's best text among the texts of others [images]; of
    each text among all texts, for its picture [texts].
    Raises: InputError for similarities that are not finite, and for pictures without a text.
    """
    scores, owner = np.asarray(similarities, dtype=np.float32), np.asarray(image_of_text)
    if scores.ndim != 2 or owner.shape != scores.shape[:1]:
        raise InputError(
            f"retrieval: similarities of shape {scores.shape} and {owner.size} texts; they must be [texts, images]"
        )
    if not np.isfinite(scores).all():
        raise InputError("retrieval: similarities hold nan or inf; look at the embeddings for rows of zeros")
    if set(owner.tolist()) != set(range(scores.shape[1])):
        raise InputError("retrieval: every picture needs a text, and every text a picture of the gallery")
    texts = np.arange(len(owner))
    right = scores[texts, owner]
    among_images = (scores >= right[:, None]).sum(axis=1) - 1
    among_texts = np.array([(scores[:, image] >= score).sum() - 1 for image, score in zip(owner, right, strict=True)])
    of_image = []
    for image in range(scores.shape[1]):
        best = scores[owner == image, image].max()
        of_image.append((scores[owner != image, image] >= best).sum())
    return among_images, np.array(of_image), among_texts


def clipbench(prediction: Any, reference: Any) -> dict[str, Any]:
    """Recalls of a similarity matrix [texts, images]; `text_true_recall`: share of a picture's texts that are found.

    Source: CLIP_benchmark, zeroshot_retrieval.
    """
    owner = np.asarray(reference["text_to_image_index"])
    among_images, of_image, among_texts = ranks(prediction, owner)
    texts, images = np.shape(prediction)
    found: dict[str, Any] = {}
    for top in PUBLISHED_TOP:
        if top <= images:
            found[f"image_retrieval_recall@{top}"] = float((among_images < top).mean())
        if top <= texts:
            found[f"text_retrieval_recall@{top}"] = float((of_image < top).mean())
            shares = np.bincount(owner, weights=among_texts < top) / np.bincount(owner)
            found[f"text_true_recall@{top}"] = float(shares.mean())
    return found


def query(prediction: Any, reference: Any) -> dict[str, Any]:
    """One query of a run. prediction: its rank as a text, empty for what could not be searched.

    reference: {"direction", "gallery"}, the latter the number of items searched; `right`: places of the right ones.
    """
    rank, _ = _rank(prediction), _gallery(reference)
    return {"extracted": str(prediction) or None, "score": float(rank < 1)}


def measures(rows: Sequence[Scored]) -> list[Measure]:
    """R@1 over both directions, then R@1, 5 and 10 of each."""
    found = np.array([_rank(row.prediction) for row in rows])
    ones = np.ones(len(rows))
    measured = [mean_of((found < 1).astype(float).tolist(), ones.tolist(), "R@1")]
    for direction in (IMAGE_TO_TEXT, TEXT_TO_IMAGE):
        of_direction = np.array([row.reference["direction"] == direction for row in rows], dtype=float)
        for top in TOP:
            hits = (found < top) * of_direction
            measured.append(mean_of(hits.tolist(), of_direction.tolist(), f"{direction} R@{top}"))
    return measured


def constants(references: Sequence[Any]) -> dict[str, list[str]]:
    """One vector for everything: all others score as high. And guessing, each rank as often as any other."""
    counts: Counter[tuple[str, int]] = Counter()
    guessed = []
    for reference in references:
        items = max(1, _gallery(reference) // len(reference.get("right", [0])))  # for each of the right ones
        guessed.append(str(counts[reference["direction"], items] % items))
        counts[reference["direction"], items] += 1
    return {"one vector": [str(_gallery(reference) - 1) for reference in references], "guessing": guessed}


def _rank(prediction: Any) -> float:
    """Without a prediction behind all others."""
    text = str(prediction)
    if not text:
        return math.inf
    if not (text.isascii() and text.isdigit()):
        raise InputError(
            f"retrieval: {text[:50]!r} is no rank; a query's prediction is the number of items before the right one"
        )
    return int(text)


def _gallery(reference: Any) -> int:
    if not isinstance(reference, Mapping) or reference.get("direction") not in (IMAGE_TO_TEXT, TEXT_TO_IMAGE):
        raise InputError(
            f"retrieval: {reference!r} needs `direction`, {IMAGE_TO_TEXT} or {TEXT_TO_IMAGE}, and `gallery`"
        )
    return int(reference["gallery"])


SCORER = Scorer(
    default="clipbench",
    cases={"clipbench": query},
    totals={"clipbench": clipbench},
    measures=measures,
    constants=constants,
    parsed=lambda record: record["extracted"],
)
