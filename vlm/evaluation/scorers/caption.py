"""Captions: a sentence about a picture against several that people wrote (CIDEr-D, BLEU, ROUGE-L)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlm.contracts.benchmark import Measure, Scored, Scorer
from vlm.contracts.errors import InputError
from vlm.evaluation.scorers.caption_scores import CIDER_SCALE, ORDER, bleu, bleu_columns, cider, rouge_l, typical
from vlm.evaluation.scorers.measures import mean_of
from vlm.evaluation.scorers.ptb import tokenize
from vlm.evaluation.scorers.trivial import always

PERCENT = 100  # VLMEvalKit's scale


def one(prediction: Any, reference: Any) -> dict[str, Any]:
    """One caption: its ROUGE-L, which alone of the figures is defined for a single picture."""
    said = tokenize(str(prediction))
    return {"score": rouge_l(said, [tokenize(text) for text in _captions(reference)]), "tokenized": said}


def ptb(prediction: Any, reference: Any) -> dict[str, Any]:
    """The tokenised text alone."""
    return {"tokenized": tokenize(str(prediction))}


def ptb_scores(predictions: Any, references: Any) -> dict[str, Any]:
    """All figures of tokenised captions, 0..1 (CIDEr 0..10); of a single caption what `one` gives."""
    if isinstance(predictions, str):
        return one(predictions, references)
    said = [tokenize(str(text)) for text in predictions]
    meant = [[tokenize(text) for text in _captions(reference)] for reference in references]
    figures, cider_of, rouge_of = _figures(said, meant)
    return {
        **figures,
        "cider_per_image": cider_of,
        "rouge_l_per_image": rouge_of,
        "tokenized_predictions": said,
        "tokenized_references": meant,
    }


def vlmevalkit(predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
    """VLMEvalKit's figures: no tokeniser, times 100; not to be set beside the others."""
    figures, _, _ = _figures([str(text) for text in predictions], [_captions(reference) for reference in references])
    return {name: value * PERCENT for name, value in figures.items()}


def measures(rows: Sequence[Scored]) -> list[Measure]:
    """CIDEr counts how rare words are over all rows, also for resampled ones; BLEU is that of the resampled corpus."""
    said = [tokenize(row.prediction) for row in rows]
    meant = [[tokenize(text) for text in _captions(row.reference)] for row in rows]
    ones, columns = [1.0] * len(rows), bleu_columns(said, meant)
    return [
        mean_of(cider(said, meant).tolist(), ones, "CIDEr", top=CIDER_SCALE),
        *(Measure(f"BLEU-{size}", columns, _bleu(size)) for size in range(1, ORDER + 1)),
        mean_of([rouge_l(text, texts) for text, texts in zip(said, meant, strict=True)], ones, "ROUGE-L"),
    ]


def constants(references: Sequence[Any]) -> dict[str, list[str]]:
    """The gold caption that is most like all others, for every picture."""
    meant = [_captions(reference) for reference in references]
    image, number = typical([[tokenize(text) for text in texts] for texts in meant])
    return {"one caption": always(meant[image][number], references), "empty": always("", references)}


def unparsable(prediction: Any, reference: Any, record: Mapping[str, Any]) -> bool:
    return not record["tokenized"]


def _figures(said: Sequence[str], meant: Sequence[Sequence[str]]) -> tuple[dict[str, float], list[float], list[float]]:
    """The means, and CIDEr and ROUGE-L of each image."""
    sums = bleu_columns(said, meant).sum(axis=0)
    cider_of = cider(said, meant).tolist()
    rouge_of = [rouge_l(text, texts) for text, texts in zip(said, meant, strict=True)]
    figures = {f"bleu_{size}": float(bleu(sums, size)) for size in range(1, ORDER + 1)}
    return {**figures, "cider": float(np.mean(cider_of)), "rouge_l": float(np.mean(rouge_of))}, cider_of, rouge_of


def _bleu(size: int):
    return lambda sums: np.where(sums[..., -1] > 0, bleu(sums, size), np.nan)


def _captions(reference: Any) -> list[str]:
    captions = reference.get("captions") if isinstance(reference, Mapping) else reference
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, Sequence) or not captions or not all(isinstance(text, str) for text in captions):
        raise InputError(f"caption: gold captions {captions!r} are no texts; rows need a list with at least one")
    return list(captions)


SCORER = Scorer(
    default="ptb-scores",
    cases={"ptb-scores": one, "ptb": ptb},
    totals={"ptb-scores": ptb_scores, "vlmevalkit": vlmevalkit},
    measures=measures,
    constants=constants,
    unparsable=unparsable,
    parsed=lambda record: record["tokenized"] or None,
)
