"""python -m data_prep.prepare source=NAME [from=DIR] [out=DIR] [parts=[a,b]] [limit=N] [dry_run=true]"""

from __future__ import annotations

import json
import sys

import hydra
from omegaconf import DictConfig, OmegaConf

from vlm.contracts.errors import ConfigError, InputError, RunError
from vlm.contracts.places import config_dir

TOLD = ("set", "split", "counts", "bytes")  # what a finished split prints; the rest stands in its manifest.json
started = False  # Hydra leaves with code 1 where it refuses a command line; that is a refusal, code 2


@hydra.main(version_base=None, config_path=str(config_dir()), config_name="prepare")
def main(config: DictConfig) -> None:
    """Published files to verified shards; the counts of each split go to standard output."""
    global started
    started = True
    from data_prep.convert import prepare
    from data_prep.settings import check

    try:
        plain = OmegaConf.to_container(config, resolve=True)
        assert isinstance(plain, dict)
        for manifest in prepare(*check(plain)):
            print(json.dumps(manifest if "dry_run" in manifest else {name: manifest[name] for name in TOLD}))
    except (ConfigError, InputError, RunError) as error:
        print(error, file=sys.stderr)
        sys.exit(1 if isinstance(error, RunError) else 2)
    except KeyboardInterrupt:
        print("stopped; no part of the set is left, downloads are kept: the same command goes on", file=sys.stderr)
        sys.exit(75)


if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        sys.exit(2 if end.code == 1 and not started else end.code)
