"""SLAKE: questions about radiology pictures in English and Chinese, open and closed."""

from __future__ import annotations

from typing import Any

from vlm.evaluation.scorers import medical
from vlm.evaluation.scorers.medical_closed import fold, fold_yes_no

# What the totals of tests/fixtures/eval choose between; gold data with `candidates` of its own goes before.
CANDIDATES = (
    "yes", "no", "abdomen", "pelvis", "lung cancer", "left", "right", "left lung", "ct", "mri", "t1 image",
    "xray", "2", "two", "edema", "right middle lobe", "coronal", 3, "none", "liver and spleen", "the bladder",
)  # fmt: skip


def lmms(prediction: Any, reference: Any) -> dict[str, Any]:
    """lmms-eval's form: equality of the folded texts, open or closed."""
    said, gold = (fold_yes_no(fold(str(text))) for text in (prediction, medical.gold_answer(reference)))
    return {"normalized_prediction": said, "normalized_answer": gold, "score": int(said == gold)}


SCORER = medical.scorer(CANDIDATES, {"lmms": lmms})
