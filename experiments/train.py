"""One training run, or a sweep of them; prints the run folder.

python -m experiments.train experiment=supravl_nano data=captions_small
python -m experiments.train experiment=purevlm seed=0,1,2 -m
python -m experiments.train encoder=vit_nano connector=linear llm=gpt2_nano phase.epochs=3
"""

from __future__ import annotations

from typing import Any

from experiments.command import entry
from vlm.build import Composed


@entry("train")
def main(composed: Composed) -> Any:
    from vlm.run import train  # torch is loaded once the configuration has passed its check

    return train(composed)


if __name__ == "__main__":
    main()
