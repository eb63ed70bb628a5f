"""A published checkpoint becomes a model folder of this project; prints the folder.

python -m experiments.import_checkpoint format=purevlm path=model.npz out=models/purevlm
python -m experiments.import_checkpoint format=supravl_nano path=FOLDER out=models/supravl_nano
"""

from __future__ import annotations

from pathlib import Path

from experiments.command import entry
from vlm.build import Composed
from vlm.contracts.errors import InputError
from vlm.contracts.settings import ImportConfig


@entry("import_checkpoint", ImportConfig)
def main(composed: Composed) -> None:
    config, out = composed.config, Path(composed.config["out"])
    if out.exists():
        raise InputError(f"out: {out} exists already; name a new folder, so that nothing is overwritten")
    from vlm.library import import_checkpoint  # torch is loaded once the command has passed its check
    from vlm.training.weights import save_model

    save_model(import_checkpoint(config["format"], config["path"]), out)
    print(out)


if __name__ == "__main__":
    main()
