"""Prepare one set: published files to verified shards; the counts of each split go to standard output.

python -m data_prep.prepare source=NAME [from=DIR_OR_HUB] [out=DIR] [parts=[a,b]] [limit=N] [dry_run=true]
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from data_prep.command import EXIT_CODES, did_you_mean, guard
from vlm.contracts.errors import ConfigError, Problem
from vlm.contracts.places import config_dir

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

TOLD = ("set", "split", "counts", "bytes")  # what a finished split prints; the rest stands in its manifest.json
STOPPED = "stopped; what is complete is kept, and downloads too: the same command goes on"


def main(words: list[str]) -> int:
    """Returns: the exit code."""

    def work() -> int:
        for manifest in _prepared(words):
            print(told(manifest))
        return 0

    return guard(words, help_text, work, STOPPED)


def told(manifest: dict[str, Any]) -> str:
    """What is printed of a finished split, as JSON; of a dry run or a part all there is."""
    return json.dumps({name: manifest[name] for name in TOLD} if "format" in manifest else manifest)


def help_text() -> str:
    """What the command does, the sources with the first line of their files, the keys, and the exit codes."""
    files = [config_dir() / "source" / f"{name}.yaml" for name in sources()]
    width = max(len(path.stem) for path in files) + 2
    about = [f"  {path.stem:<{width}}{path.read_text('utf-8').splitlines()[0].lstrip('# ')}" for path in files]
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
    return prepare(*check(config, problems), words)


def _no_source(name: str) -> Problem:
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
