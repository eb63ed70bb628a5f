"""The plain nodes of a run's configuration as typed records: what has no `_target_` of its own.

The configuration check validates against these classes (unknown keys, types and ranges), and the same
objects are what the code reads, so a key that exists here reaches its reader.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt, Le, Len

from vlm.contracts.ranges import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
)

STRICT = {"extra": "forbid", "strict": True}  # pydantic's own switch: no unknown keys, no conversions
RowRange = Annotated[list[NonNegativeInt], Len(2, 2)]
Share = Annotated[float, Gt(0), Le(1)]


@dataclass(frozen=True)
class Paths:
    """Where things lie; not part of a run's identity."""

    __pydantic_config__: ClassVar = STRICT
    data: str
    runs: str


@dataclass(frozen=True)
class SetUse:
    """How a set enters a mix. One of `split` and `stream` says where it lies.

    split: of a prepared set.   stream: address of shards without manifest and index, read from their beginning.
    rows: first and end; of a stream they must be given.   weight: times that each row is read in an epoch.
    share: part of all rows that are read, in place of a weight.
    augment: whether training changes its pictures as encoder.views says; not where a text tells a place or a side.
    """

    __pydantic_config__: ClassVar = STRICT
    split: str | None = None
    rows: RowRange | None = None
    weight: PositiveFloat = 1.0
    share: Share | None = None
    stream: str | None = None
    augment: bool = True


@dataclass(frozen=True)
class LocalitySettings:
    """Shuffling for object stores and spinning disks. block_mb: read together; window_mb: shuffled together (2**20 bytes)."""

    __pydantic_config__: ClassVar = STRICT
    block_mb: PositiveFloat
    window_mb: PositiveFloat


@dataclass(frozen=True)
class DataSettings:
    """Which prepared sets a run reads, and how.

    skip_budget: share of the training rows that may be left out. Validation rows are exempt: they are left out, counted
    and told. A test row that cannot be used ends the test, as a score over fewer rows would be no score.
    overflow: what is done with a text that is too long, see `vlm.data.processor`.
    licence_policy, allow_eval_split: refuse or allow sets, and change nothing about a run.
    """

    __pydantic_config__: ClassVar = STRICT
    train: dict[str, SetUse | None]
    validate: dict[str, SetUse | None]
    test: dict[str, SetUse | None]
    shuffle: bool
    prompts: list[str]
    skip_budget: Fraction
    cache_gb: NonNegativeFloat
    locality: LocalitySettings | None = None
    overflow: Literal["cut", "skip"] = "cut"
    licence_policy: Literal["any", "no_noncommercial", "permissive_only"] = "any"
    allow_eval_split: bool = False


@dataclass(frozen=True)
class HardwareProfile:
    """How a run is carried out; it never changes what is computed."""

    __pydantic_config__: ClassVar = STRICT
    accelerator: Literal["cpu", "gpu"]
    devices: PositiveInt
    nodes: PositiveInt
    strategy: Literal["single", "ddp", "fsdp2"]
    precision: Literal["32-true", "64-true", "bf16-mixed", "bf16-true"]
    micro_batch: PositiveInt | None
    micro_tokens: PositiveInt | None
    pack: bool
    recompute: bool
    workers: NonNegativeInt
    threads: PositiveInt | None
    timeout_s: PositiveFloat
    memory_gb: PositiveFloat | None = None

    @property
    def world(self) -> int:
        """Processes that train together."""
        return self.devices * self.nodes


@dataclass(frozen=True)
class LoggingSettings:
    """Where metrics are mirrored; metrics.jsonl is always written."""

    __pydantic_config__: ClassVar = STRICT
    wandb: Literal["offline", "online", "disabled"]
    project: str
    group: str | None
    progress: bool


@dataclass(frozen=True)
class WatchSettings:
    """A benchmark that is scored at each validation. limit: questions.   change: keys of its file to change."""

    __pydantic_config__: ClassVar = STRICT
    limit: PositiveInt
    change: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """The whole of conf/train.yaml. Parts and phase are nodes with a `_target_`, checked against its signature."""

    __pydantic_config__: ClassVar = STRICT
    name: str
    seed: Seed
    resume: str | None
    init_from: str | None
    weights: dict[str, str | None]
    paths: Paths
    model: dict[str, Any]
    encoder: dict[str, Any]
    connector: dict[str, Any] | None
    llm: dict[str, Any] | None
    fusion: dict[str, Any] | None
    phase: dict[str, Any]
    data: DataSettings
    benchmarks: dict[str, WatchSettings | None]
    hardware: HardwareProfile
    logging: LoggingSettings
    text: dict[str, Any] | None = None


@dataclass(frozen=True)
class GenerateConfig:
    """The whole of conf/generate.yaml."""

    __pydantic_config__: ClassVar = STRICT
    model: str
    image: str | None
    video: str | None
    prompt: str
    requests: Literal["stdin"] | None
    decoding: Literal["greedy", "top_k", "beam", "sampled"]
    token_budget: PositiveInt | None
    mode: str | None
    max_new_tokens: PositiveInt | None
    num_beams: PositiveInt | None
    top_k: PositiveInt | None
    temperature: PositiveFloat | None
    seed: Seed


@dataclass(frozen=True)
class PriorSettings:
    """A prepared split whose questions tell the most frequent training answer of each question text."""

    __pydantic_config__: ClassVar = STRICT
    set: str
    split: str


@dataclass(frozen=True)
class BenchmarkSettings:
    """One file of conf/benchmark: where its questions are, how they are put, and how answers are scored.

    scorer: module of vlm/evaluation/scorers.   variants: of it, the first one's score is the headline.
    split_by: keys of the gold data whose values get a result of their own.   prompt, option: texts with {fields}.
    candidates, normalise: of decoding=likelihood; what is compared, and whether per token.
    controls: the same model again, with grey pictures (blank) or with other questions' pictures (shuffled).
    temperature, draws: of decoding=sampled; what scores are divided by, and answers to each question.
    """

    __pydantic_config__: ClassVar = STRICT
    name: str
    scorer: str
    variants: Annotated[list[str], Len(1)]
    split_by: list[str]
    reader: dict[str, Any]
    prompt: str
    option: str
    decoding: Literal["greedy", "sampled", "likelihood", "similarity"]
    candidates: Literal["letters", "options"] | list[str] | None
    normalise: Literal["none", "tokens"]
    max_new_tokens: PositiveInt
    controls: list[Literal["blank", "shuffled"]]
    prior: PriorSettings | None
    get: str
    license: str
    temperature: PositiveFloat = 1.0
    draws: PositiveInt = 1


@dataclass(frozen=True)
class SuiteSettings:
    """One file of conf/suite: benchmarks that are scored together. limit: questions of each, None for all."""

    __pydantic_config__: ClassVar = STRICT
    benchmarks: list[str]
    limit: PositiveInt | None


@dataclass(frozen=True)
class EvaluateConfig:
    """The whole of conf/evaluate.yaml."""

    __pydantic_config__: ClassVar = STRICT
    model: str | None
    rescore: str | None
    compare: list[str] | None
    suite: SuiteSettings
    benchmarks: list[str] | None
    change: dict[str, dict[str, Any]]
    limit: PositiveInt | None
    seed: Seed
    decoding: Literal["greedy", "sampled", "likelihood"] | None
    ocr: Literal["none", "rapidocr", "easyocr"]
    controls: list[Literal["blank", "shuffled"]] | None
    shifts: NonNegativeInt
    missing: Literal["refuse", "unparsable"]
    token_budget: PositiveInt | None
    batch: PositiveInt
    device: Literal["cpu", "cuda"] | None
    processes: PositiveInt
    part: str | None
    out: str | None
    paths: Paths
    logging: LoggingSettings


@dataclass(frozen=True)
class OneBenchmark:
    """The whole of conf/benchmark.yaml: one benchmark, composed by itself."""

    __pydantic_config__: ClassVar = STRICT
    benchmark: BenchmarkSettings


@dataclass(frozen=True)
class ImportConfig:
    """The whole of conf/import_checkpoint.yaml."""

    __pydantic_config__: ClassVar = STRICT
    format: Literal["purevlm", "supravl_nano", "keural", "fvlm"]
    path: str
    out: str
    base: str | None
    encoder: str | None
    quantize: Literal["nf4"] | None


@dataclass(frozen=True)
class ExportConfig:
    """The whole of conf/export.yaml."""

    __pydantic_config__: ClassVar = STRICT
    model: str
    to: Literal["hf", "internvl", "llava", "keural", "merged"]
    out: str


@dataclass(frozen=True)
class ReportConfig:
    """The whole of conf/report.yaml."""

    __pydantic_config__: ClassVar = STRICT
    runs: str
    out: str | None


@dataclass(frozen=True)
class BaseSettings:
    """A language model that stays in the folder that it came from. fingerprint: of its weights."""

    __pydantic_config__: ClassVar = STRICT
    path: str
    fingerprint: str


@dataclass(frozen=True)
class ModelConfig:
    """config.json of a saved model: its parts, as in a run's configuration.

    format: version of this layout.   base: of a language model whose weights are not saved with it.
    """

    __pydantic_config__: ClassVar = STRICT
    format: Literal[2]
    model: dict[str, Any]
    encoder: dict[str, Any]
    connector: dict[str, Any] | None = None
    llm: dict[str, Any] | None = None
    fusion: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    base: BaseSettings | None = None
