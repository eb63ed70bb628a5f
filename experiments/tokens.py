"""A page about an encoder's tokens: where it puts them, what each budget costs, and what it is worth; prints its path.

python -m experiments.tokens model=runs/keural_contrastive/0123456789ab images=photographs budgets=[64,256,1024]
python -m experiments.tokens model=DIR out=tokens.html
"""

from __future__ import annotations

from experiments.command import entry
from vlm.build import Composed
from vlm.contracts.pages import TokensConfig


@entry("tokens", TokensConfig)
def main(composed: Composed) -> None:
    from vlm.look import look  # torch is loaded once the command has passed its check

    print(look(composed.config))


if __name__ == "__main__":
    main()
