"""Benchmarks by name: their files in conf/benchmark, with some keys changed, checked like any configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from vlm.build import compose
from vlm.check import check
from vlm.contracts.errors import ConfigError, Problem
from vlm.contracts.places import config_dir
from vlm.contracts.settings import BenchmarkSettings, OneBenchmark
from vlm.wording import no_choice

if TYPE_CHECKING:
    from vlm.evaluation.prepared import Prepared

TOLD = (  # that titles tell if changed
    "prompt", "option", "decoding", "candidates", "normalise", "max_new_tokens", "temperature", "draws",
)  # fmt: skip


def benchmark_settings(name: str, change: Mapping[str, Any]) -> BenchmarkSettings:
    """conf/benchmark/<name>.yaml with some keys changed, checked.

    Raises: ConfigError naming file and key.
    """
    options = sorted(path.stem for path in (config_dir() / "benchmark").glob("*.yaml"))
    if name not in options:
        raise ConfigError([Problem("benchmarks", no_choice("benchmark", name, options), "command line")])
    if "name" in change:
        raise ConfigError(
            [Problem(f"change.{name}.name", "stays; copy conf/benchmark/NAME.yaml for a benchmark of its own")]
        )
    config = compose([f"benchmark={name}"], "benchmark", OneBenchmark).config
    config["benchmark"] = _merged(config["benchmark"], change)
    problems = check(config, OneBenchmark)
    if problems:
        raise ConfigError([Problem(f"change.{name}.{p.key.removeprefix('benchmark.')}", p.message) for p in problems])
    return TypeAdapter(BenchmarkSettings).validate_json(json.dumps(config["benchmark"]))


def prepared_benchmark(name: str, change: Mapping[str, Any], data: str) -> Prepared:
    """A benchmark with the reader of its files. Raises: ConfigError for its settings."""
    from vlm.evaluation.prepared import Prepared
    from vlm.models.assemble import create

    settings = benchmark_settings(name, change)
    reader = create({**settings.reader, "folder": str(Path(data) / settings.reader["folder"])})
    plain = asdict(benchmark_settings(name, {}))
    return Prepared(settings, reader, {key: change[key] for key in TOLD if key in change and plain[key] != change[key]})


def _merged(before: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(before)
    for key, value in change.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged
