"""A published checkpoint becomes a model folder of this project; prints the folder.

python -m experiments.import_checkpoint format=purevlm path=model.npz out=models/purevlm
python -m experiments.import_checkpoint format=supravl_nano path=FOLDER out=models/supravl_nano
python -m experiments.import_checkpoint format=keural path=FOLDER base=MISTRAL_FOLDER out=models/keural
python -m experiments.import_checkpoint format=fvlm path=checkpoint.pt base=SMOLLM2_FOLDER out=models/fvlm
"""

from __future__ import annotations

from pathlib import Path

from experiments.command import entry
from vlm.build import Composed
from vlm.contracts.errors import InputError
from vlm.contracts.settings import ImportConfig


@entry("import_checkpoint", ImportConfig)
def main(composed: Composed) -> None:
    given = {key: composed.config[key] for key in ("format", "path", "base", "encoder", "quantize")}
    if (out := Path(composed.config["out"])).exists():
        raise InputError(f"out: {out} exists already; name a new folder, so that nothing is overwritten")
    from vlm.importing import import_checkpoint  # torch is loaded once the command has passed its check
    from vlm.training.weights import save_model

    save_model(import_checkpoint(**given), out)
    print(out)


if __name__ == "__main__":
    main()
