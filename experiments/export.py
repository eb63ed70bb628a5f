"""A model of this project becomes a folder that others read; prints the folder.

python -m experiments.export model=runs/keural_dpo/0123456789ab to=hf out=exported/keural
python -m experiments.export model=DIR to=keural out=exported/published
python -m experiments.export model=DIR to=merged out=models/merged
"""

from __future__ import annotations

from pathlib import Path

from experiments.command import entry
from vlm.build import Composed
from vlm.contracts.settings import ExportConfig


@entry("export", ExportConfig)
def main(composed: Composed) -> None:
    config = composed.config
    from vlm.export import export  # torch is loaded once the command has passed its check

    print(export(config["model"], config["to"], Path(config["out"])))


if __name__ == "__main__":
    main()
