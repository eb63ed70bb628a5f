"""The records of an evaluation folder: results.json as typed entries, predictions.jsonl as a stream of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter, ValidationError

from vlm.contracts.errors import InputError
from vlm.evaluation.results import ABOVE, MOST_UNPARSABLE, NOT_ABOVE
from vlm.evaluation.text import best_baseline, title

ROW_KEYS = ("benchmark", "id", "prediction")  # imported predictions have no more
Interval = tuple[float | None, float | None] | None


def _verdict(text: str) -> str:
    if text not in (ABOVE, NOT_ABOVE):
        raise ValueError(f"{text!r} is neither {ABOVE!r} nor {NOT_ABOVE!r}")
    return text


@dataclass(frozen=True)
class Baseline:
    """A trivial answer on the same rows. difference: model minus baseline, with its paired 95 % interval."""

    score: float | None
    difference: float | None = None
    interval: Interval = None


@dataclass(frozen=True)
class Figure:
    """One measure with its 95 % interval. top: its greatest value, 1 for a share."""

    value: float | None
    interval: Interval = None
    top: float = 1.0


@dataclass(frozen=True)
class Details:
    """What stands behind an entry's headline. others: everything that has no field of its own here, by its key."""

    measures: dict[str, Figure] = field(default_factory=dict)
    pictures: dict[str, Any] | None = None
    bias: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    trained_on: dict[str, Any] | None = None
    others: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One line of results.json: a benchmark's split, scored by one variant.

    n: questions.   groups: draws of the resampling.   top: the metric's greatest value, 1 for a share.
    unparsable, truncated: shares of rows.
    """

    benchmark: str
    variant: str
    split: str
    n: int
    score: float | None
    metric: str
    verdict: Annotated[str, AfterValidator(_verdict)]
    headline: bool = True
    groups: int | None = None
    top: float = 1.0
    interval: Interval = None
    unparsable: float = 0.0
    truncated: float = 0.0
    baselines: dict[str, Baseline] = field(default_factory=dict)
    details: Details = field(default_factory=Details)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Benchmark and id of its settings: results of different settings never mix."""
        return self.benchmark, str(self.settings.get("id", ""))

    @property
    def best(self) -> tuple[str, Baseline] | None:
        """The baseline with the greatest score."""
        name = best_baseline({name: line.score for name, line in self.baselines.items()})
        return None if name is None else (name, self.baselines[name])

    @property
    def is_above(self) -> bool:
        return self.verdict == ABOVE

    @property
    def is_clean(self) -> bool:
        return self.unparsable <= MOST_UNPARSABLE

    @property
    def looks(self) -> str | None:
        """The verdict on its pictures, None where no run without them was made."""
        return (self.details.pictures or {}).get("verdict")

    @property
    def flags(self) -> list[str]:
        """What the bias checks flag, such as a letter that is chosen too often."""
        return [str(flag) for flag in (self.details.bias or {}).get("flags") or []]

    @property
    def cautions(self) -> list[str]:
        """Warnings and flags, each once."""
        return list(dict.fromkeys([*self.details.warnings, *self.flags]))

    @property
    def measures(self) -> dict[str, Figure]:
        """All measures, the headline among them."""
        return {self.metric: Figure(self.score, self.interval, self.top), **self.details.measures}

    @property
    def title(self) -> str:
        """Split, variant and count, and what sets the result apart: textvqa (lmms, n=5000)."""
        return title(self.benchmark, self.split, self.variant, self.settings, self.n)


ENTRIES = TypeAdapter(list[Entry])


def read_results(file: Path) -> list[Entry]:
    """The entries of a results.json.

    Raises: InputError naming entry and key for what is not of the form, for no entry and for one that stands twice.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, list):
            raise ValueError(f"it holds {type(content).__name__}")
        entries = ENTRIES.validate_python([_with_others(entry) for entry in content])
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); run the evaluation first") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        raise InputError(f"{file}: entry {key}: {first['msg']}; score the predictions again") from error
    except ValueError as error:  # no JSON, or not a list
        raise InputError(f"{file}: is no list of results ({error}); score the predictions again") from error
    if not entries:
        raise InputError(f"{file}: holds no result; run the evaluation first")
    known: set[tuple[str, ...]] = set()
    for number, entry in enumerate(entries):
        name = (*entry.key, entry.variant, entry.split)
        if name in known:
            raise InputError(f"{file}: entry {number}: {entry.title} stands there twice; score the predictions again")
        known.add(name)
    return entries


def read_rows(file: Path, keys: Sequence[str] = ROW_KEYS) -> Iterator[dict[str, Any]]:
    """The rows of a JSON Lines file one after another, so that its length costs no memory.

    keys: that every row must have.   Raises: InputError naming file and line.
    """
    try:
        with file.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{file}:{number}: is no JSON ({error}); run the evaluation again") from error
                missing = [key for key in keys if key not in row] if isinstance(row, dict) else list(keys)
                if missing:
                    raise InputError(f"{file}:{number}: lacks {', '.join(missing)}; run the evaluation again")
                yield row
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); run the evaluation first") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is no UTF-8 ({error.reason}); run the evaluation again") from error


def _with_others(entry: Any) -> Any:
    """Details without a field of their own are kept, because a rule's own counts have to be shown too."""
    details = entry.get("details") if isinstance(entry, Mapping) else None
    if not isinstance(details, Mapping):
        return entry
    known = {part.name for part in fields(Details)}
    others = {key: value for key, value in details.items() if key not in known}
    return {**entry, "details": {**{key: details[key] for key in details if key in known}, "others": others}}
