"""Prepare one set: published files to verified shards; the counts of each split go to standard output.

python -m data_prep.prepare source=NAME [from=DIR] [out=DIR] [parts=[a,b]] [limit=N] [dry_run=true]
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from vlm.contracts.errors import ConfigError, InputError, Problem, RunError
from vlm.contracts.places import config_dir

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

TOLD = ("set", "split", "counts", "bytes")  # what a finished split prints; the rest stands in its manifest.json
EXIT_CODES = """Exit codes:
  0   done
  1   failed
  2   configuration or input refused before anything was started
  75  stopped on request (Ctrl-C)"""


def main(words: list[str]) -> int:
    """Returns: the exit code."""
    parser = argparse.ArgumentParser("python -m data_prep.prepare", usage="%(prog)s key=value ...", add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args(words)
    if arguments.help:
        print(help_text())
        return 0
    try:
        for manifest in _prepared(arguments.overrides):
            print(json.dumps(manifest if "dry_run" in manifest else {name: manifest[name] for name in TOLD}))
    except (ConfigError, InputError, RunError) as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, RunError) else 2
    except KeyboardInterrupt:
        print("stopped; no part of the set is left, downloads are kept: the same command goes on", file=sys.stderr)
        return 75
    return 0


def help_text() -> str:
    """What the command does, the sources with the first line of their files, the keys, and the exit codes."""
    files = [config_dir() / "source" / f"{name}.yaml" for name in sources()]
    about = [f"  {path.stem:<19}{path.read_text('utf-8').splitlines()[0].lstrip('# ')}" for path in files]
    nodes = (config_dir() / "prepare.yaml").read_text("utf-8").split("\n\n")[1]
    keys = [f"  {line}" for line in nodes.splitlines()]
    return "\n".join([(__doc__ or "").strip(), "", "Sources:", *about, "", "Keys (and source.KEY, as in conf/source):",
                      *keys, "", EXIT_CODES])  # fmt: skip


def sources() -> list[str]:
    """Names of the files in conf/source."""
    return sorted(path.stem for path in (config_dir() / "source").glob("*.yaml"))


def _prepared(words: list[str]) -> list[dict[str, Any]]:
    from hydra.core.utils import configure_log  # a help page does not need any of these

    from data_prep.convert import prepare
    from data_prep.settings import check, unknown_keys

    overrides, problems = _read(words)
    name = next((str(override.value()) for override in overrides if override.key_or_group == "source"), "")
    if name not in sources():
        given = [override.key_or_group for override in overrides]
        raise ConfigError([_no_source(name), *problems, *unknown_keys(given)])
    config, logging = _compose(overrides)
    configure_log(logging)
    return prepare(*check(config, problems))


def _no_source(name: str) -> Problem:
    from data_prep.settings import did_you_mean

    what = f"there is no source {name!r}{did_you_mean(name, sources())}" if name else "missing;"
    return Problem("source", f"{what} sources: {', '.join(sources())}")


def _read(words: list[str]) -> tuple[list[Override], list[Problem]]:
    """What was given as key=value, and the words that are something else."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    read, problems = [], []
    for word in words:
        try:
            override = parser.parse_override(word.lstrip("+"))
        except HydraException:
            problems.append(Problem(word, "cannot be read; give key=value, with quotes around a value of signs"))
            continue
        if override.is_delete() or override.is_sweep_override() or override.package:
            problems.append(Problem(word, "is not of the form key=value with one value"))
        else:
            read.append(override)
    return read, problems


def _compose(overrides: list[Override]) -> tuple[dict[Any, Any], Any]:
    """The plain configuration, unknown keys included, and the settings of the log."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    # "++" lets any key in: the check that follows tells all unknown ones at once.
    forced = [f"{'' if override.key_or_group == 'source' else '++'}{override.input_line}" for override in overrides]
    try:
        with initialize_config_dir(str(config_dir()), version_base=None):
            composed = compose("prepare", forced, return_hydra_config=True)
        logging = composed.hydra.job_logging
        own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        plain = OmegaConf.to_container(own, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        told = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError([Problem("command line", f"the values do not fit together: {told}")]) from error
    assert isinstance(plain, dict)
    return plain, logging


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
