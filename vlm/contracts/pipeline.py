"""A pipeline's configuration as typed records: phases in order, where their weights come from, and what is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from annotated_types import Len
from pydantic import Field

from vlm.contracts.ranges import PositiveFloat, PositiveInt, Seed
from vlm.contracts.settings import STRICT, LoggingSettings, Paths

Words = Annotated[list[str], Len(1)]  # of a command line


@dataclass(frozen=True)
class PhaseUse:
    """One phase. experiment: a file of conf/experiment.

    init_from: the earlier phase whose trained parts it begins with.   weights: part -> the earlier phase that gives it.
    """

    __pydantic_config__: ClassVar = STRICT
    experiment: str
    init_from: str | None = None
    weights: dict[str, str | None] = field(default_factory=dict)

    @property
    def given(self) -> dict[str, str]:
        """Key of the run's configuration -> the phase whose run it names."""
        found = {f"weights.{part}": phase for part, phase in self.weights.items()}
        return {key: phase for key, phase in {"init_from": self.init_from, **found}.items() if phase is not None}


@dataclass(frozen=True)
class Scoring:
    """What is scored when all phases are finished. models: phases; the others are compared with the first.

    suite, benchmarks: one of the two.   keys: any other key of conf/evaluate.yaml.
    """

    __pydantic_config__: ClassVar = STRICT
    models: Annotated[list[str], Len(1)]
    suite: str | None = None
    benchmarks: list[str] | None = None
    limit: PositiveInt | None = None
    keys: Mapping[str, Any] = field(default_factory=dict)  # `dict` would be a node with a `_target_`


@dataclass(frozen=True)
class PipelineConfig:
    """The whole of conf/pipeline.yaml.

    prepare: words of a preparation each, carried out where a phase or a benchmark misses its set.   change: phase -> keys of
    its run to change.   base: only for `${base}` in a pipeline's file.   begin, end: `from` and `until`.   hardware: None = each experiment's own; else the chosen
    profile, of which the phases get the words that chose it.
    """

    __pydantic_config__: ClassVar = STRICT
    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    prepare: list[Words]
    phases: dict[str, PhaseUse | None]
    evaluate: Scoring | None
    base: str | None
    disk_gb: PositiveFloat | None
    begin: Annotated[str | None, Field(alias="from")]
    end: Annotated[str | None, Field(alias="until")]
    change: dict[str, dict[str, Any]]
    dry_run: bool
    seed: Seed
    paths: Paths
    logging: LoggingSettings
    hardware: Mapping[str, Any] | None = None
