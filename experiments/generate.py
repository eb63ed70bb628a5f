"""One answer about a picture, on standard output.

python -m experiments.generate model=runs/supravl_nano/0123456789ab image=cat.jpg
python -m experiments.generate model=DIR image=cat.jpg decoding=beam num_beams=5
python -m experiments.generate model=DIR image=cat.jpg decoding=sampled temperature=0.7 seed=3
python -m experiments.generate model=DIR - < requests.jsonl     (lines {"image": "cat.jpg", "prompt": "..."})
"""

from __future__ import annotations

import sys

from experiments.command import entry
from vlm.build import Composed
from vlm.contracts.settings import GenerateConfig


@entry("generate", GenerateConfig)
def main(composed: Composed) -> None:
    from vlm.requests import answer  # torch is loaded once the command has passed its check

    answer(composed.config, sys.stdin)


if __name__ == "__main__":
    sys.argv[1:] = ["requests=stdin" if word == "-" else word for word in sys.argv[1:]]
    main()
