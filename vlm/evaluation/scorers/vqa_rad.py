"""VQA-RAD: questions about radiology pictures, open and yes/no."""

from __future__ import annotations

from vlm.evaluation.scorers import medical

# What the totals of tests/fixtures/eval choose between; gold data with `candidates` of its own goes before.
CANDIDATES = (
    "yes", "no", "chest", "brain", "pleural effusion", "left", "right", "left lung", "ct", "mri", "x-ray",
    "xray", "2", "two", "cardiomegaly", "right upper lobe", "axial", 3, "none", "liver and spleen", "the heart",
)  # fmt: skip

SCORER = medical.scorer(CANDIDATES)
