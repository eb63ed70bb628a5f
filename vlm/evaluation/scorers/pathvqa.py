"""PathVQA: questions about pathology pictures, open and yes/no."""

from __future__ import annotations

from vlm.evaluation.scorers import medical

# What the totals of tests/fixtures/eval choose between; gold data with `candidates` of its own goes before.
CANDIDATES = (
    "yes", "no", "liver", "kidney", "granulomatous inflammation", "upper", "lower", "upper gland", "ct", "mri", "h-e stain",
    "xray", "2", "two", "necrosis", "lower upper lobe", "cortical", 3, "none", "liver and spleen", "the spleen",
)  # fmt: skip

SCORER = medical.scorer(CANDIDATES)
