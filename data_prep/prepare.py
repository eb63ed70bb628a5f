"""python -m data_prep.prepare source=NAME [from=DIR] [out=DIR] [parts=[a,b]] [limit=N] [dry_run=true]"""

from __future__ import annotations

import json
import sys

import hydra
from omegaconf import DictConfig, OmegaConf

from vlm.contracts.errors import ConfigError, InputError, RunError

started = False  # Hydra leaves with code 1 where it refuses a command line; that is a refusal, code 2


@hydra.main(version_base=None, config_path="../conf", config_name="prepare")
def main(config: DictConfig) -> None:
    """Published files to verified shards; the counts of each split go to standard output."""
    global started
    started = True
    from data_prep.convert import prepare
    from data_prep.settings import check

    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        for manifest in prepare(*check(plain)):
            print(json.dumps({name: manifest[name] for name in ("set", "split", "counts", "bytes") if name in manifest}
                             or manifest))  # fmt: skip
    except (ConfigError, InputError, RunError) as error:
        print(error, file=sys.stderr)
        sys.exit(1 if isinstance(error, RunError) else 2)
    except KeyboardInterrupt:
        print("stopped; nothing unfinished was left behind and downloads are kept: the same command starts again",
              file=sys.stderr)  # fmt: skip
        sys.exit(75)


if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        sys.exit(2 if end.code == 1 and not started else end.code)
