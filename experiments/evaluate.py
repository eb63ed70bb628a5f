"""Scores of a model, with intervals, trivial baselines, and whether it looks at its pictures at all.

python -m experiments.evaluate model=runs/supravl_nano/0123456789ab suite=small
python -m experiments.evaluate model=DIR benchmarks=[pope,mme] limit=1000 decoding=likelihood
python -m experiments.evaluate rescore=DIR/evaluation/predictions.jsonl
python -m experiments.evaluate compare=[RUN,OTHER_RUN]
"""

from __future__ import annotations

from experiments.command import entry
from vlm.build import Composed
from vlm.contracts.settings import EvaluateConfig


@entry("evaluate", EvaluateConfig)
def main(composed: Composed) -> None:
    from vlm.evaluate import evaluate  # NumPy and SciPy are loaded once the command has passed its check

    evaluate(composed)


if __name__ == "__main__":
    main()
