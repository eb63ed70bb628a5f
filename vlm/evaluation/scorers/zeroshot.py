"""Zero-shot classification: a picture's vector against one vector a class, made from several prompt templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from vlm.contracts.benchmark import Measure, Scored, Scorer
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.measures import macro, mean, mean_of
from vlm.evaluation.scorers.trivial import always, most_frequent

TOP = 5  # undefined for fewer classes


def classifier(embeddings: ArrayLike) -> np.ndarray:
    """Class vectors of length 1 [classes, dim] from embeddings of texts [classes, templates, dim].

    The mean of each class's vectors of length 1, brought to length 1 again. Source: Radford et al. 2021, section 3.1.4.
    """
    return _unit(_unit(np.asarray(embeddings, dtype=np.float64)).mean(axis=1))


def ensemble(prediction: Any, reference: Any) -> dict[str, Any]:
    """The class vectors of embeddings [classes][templates][dim]."""
    return {"classifier_columns": classifier(prediction).tolist()}


def clipbench(prediction: Any, reference: Any) -> dict[str, Any]:
    """Accuracies of logits [pictures, classes] against class numbers; ties count as wrong.

    Source: CLIP_benchmark, zeroshot_classification; mean per-class recall is over classes that occur.
    """
    logits, gold = np.asarray(prediction, dtype=np.float64), np.asarray(reference)
    if logits.ndim != 2 or gold.shape != logits.shape[:1] or not np.isfinite(logits).all():
        raise InputError(
            f"zeroshot: logits of shape {logits.shape} for {gold.size} pictures; finite [pictures, classes]"
        )
    if gold.min() < 0 or gold.max() >= logits.shape[1]:
        raise InputError(f"zeroshot: class numbers {gold.min()} to {gold.max()} of {logits.shape[1]} classes")
    right = logits[np.arange(len(gold)), gold]
    rank = (logits >= right[:, None]).sum(axis=1) - 1
    hits = rank < 1
    return {
        "acc1": float(hits.mean()),
        "acc5": float((rank < TOP).mean()) if logits.shape[1] >= TOP else None,
        "mean_per_class_recall": float(np.mean([hits[gold == label].mean() for label in np.unique(gold)])),
    }


def picture(prediction: Any, reference: Any) -> dict[str, Any]:
    """One picture of a run. prediction: class names, the likeliest first, one a line.   reference: {"label"}."""
    ranked = _ranked(str(prediction))
    return {"extracted": ranked[0] if ranked else None, "score": float(ranked[:1] == [_label(reference)])}


def measures(rows: Sequence[Scored]) -> list[Measure]:
    labels = [_label(row.reference) for row in rows]
    found = [mean(rows), macro(rows, labels, "mean per-class recall")]
    if len(set(labels)) >= TOP:
        hits = [float(label in _ranked(row.prediction)[:TOP]) for row, label in zip(rows, labels, strict=True)]
        found.append(mean_of(hits, [1.0] * len(rows), f"top-{TOP}"))
    return found


def constants(references: Sequence[Any]) -> dict[str, list[str]]:
    return {"most frequent class": always(most_frequent([_label(reference) for reference in references]), references)}


def _ranked(prediction: str) -> list[str]:
    return [line.strip() for line in prediction.split("\n") if line.strip()]


def _label(reference: Any) -> str:
    label = reference.get("label") if isinstance(reference, Mapping) else reference
    if not isinstance(label, str) or not label.strip():
        raise InputError(f"zeroshot: {reference!r} names no class; rows need a key `label`")
    return label.strip()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


SCORER = Scorer(
    default="clipbench",
    cases={"clipbench": picture},
    totals={"clipbench": clipbench, "ensemble": ensemble},
    measures=measures,
    constants=constants,
    parsed=lambda record: record["extracted"],
)
