"""The record of a pipeline: which run is which phase, whose weights it took, and how it scored."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vlm.contracts.errors import InputError
from vlm.evaluation.records import RESULTS, read_entries
from vlm.pipeline import Plan, PlannedPhase
from vlm.training.folder import write_json

HEADLINES = (  # of a phase's last validation, those that it has, beside what its checkpoints are kept by
    "val/loss", "val/vision_gain", "val/retrieval_r1", "val/reward_accuracy", "val/reward_margin", "test/exact_match",
)  # fmt: skip


class Record:
    """<runs>/pipelines/<name>-<id>.json: the same pipeline finds it again, whatever was asked of it before."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.path = Path(plan.settings.paths.runs) / "pipelines" / f"{plan.title}.json"
        self.compared = self.path.with_suffix(".compared.txt")
        self.trained_here: set[str] = set()  # phases that this call has trained
        self._lock = FileLock(self.path.with_suffix(".lock"))  # the system frees it if the process dies

    def open(self) -> None:
        """Raises: InputError if another process carries out this pipeline, or its folder cannot be made."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{self.path}: another process carries out this pipeline; wait for it, or change seed or any key"
            ) from None
        except OSError as error:
            raise InputError(
                f"{self.path.parent} cannot be made: {error.strerror}; set paths.runs to a folder you may write to"
            ) from error

    def close(self) -> None:
        self._lock.release()

    def write(self) -> None:
        """Raises: RunError if it cannot be written."""
        plan = self.plan
        content = {
            "name": plan.settings.name,
            "id": plan.id,
            "seed": plan.settings.seed,
            "command": shlex.join(["python", "-m", "experiments.pipeline", *plan.overrides]),
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "phases": {phase.name: self._phase(phase) for phase in plan.phases},
            "evaluations": {name: self._evaluation(name) for name in plan.scored},
            "compared": str(self.compared) if self.compared.exists() else None,
        }
        write_json(self.path, content)

    def _phase(self, phase: PlannedPhase) -> dict[str, Any]:
        status = phase.status
        kept = ("step", "max_steps", "seconds", "best", "metrics", "warnings", "error", "started", "host")
        return {
            "experiment": phase.experiment,
            "id": phase.folder.name,
            "run": str(phase.folder),
            "weights": {key: str(self._folder(name)) for key, name in phase.given.items()},
            "command": shlex.join(["python", "-m", "experiments.train", *phase.words]),
            "state": status.get("state", "missing"),
            **{key: status[key] for key in kept if key in status},
        }

    def _folder(self, name: str) -> Path:
        return next(phase.folder for phase in self.plan.phases if phase.name == name)

    def _evaluation(self, name: str) -> dict[str, Any] | None:
        """Headlines of the whole benchmarks that the pipeline asks for, under its settings."""
        folder, scoring = self._folder(name) / "evaluation", self.plan.scoring
        if scoring is None or not (folder / RESULTS).is_file():
            return None
        names = scoring.benchmarks if scoring.benchmarks is not None else scoring.suite.benchmarks
        asked = {"limit": scoring.limit or scoring.suite.limit, "seed": scoring.seed}
        told = ("benchmark", "variant", "n", "score", "interval", "verdict")
        entries = [
            {key: entry[key] for key in told}
            for entry in read_entries(folder / RESULTS)
            if entry["headline"] and entry["split"] == "all" and entry["benchmark"] in names
            and all(entry["settings"].get(key) == value for key, value in asked.items())
        ]  # fmt: skip
        return {"page": str(folder / "results.html"), "results": entries}

    @property
    def metric(self) -> float | None:
        """Of the last phase that is asked for: what its checkpoints are kept by."""
        return (self.plan.asked[-1].status.get("best") or {}).get("value")

    def lines(self) -> Iterator[str]:
        """A line a phase: state, seconds over all its starts, headline metrics, folder."""
        rows = [(phase, phase.status) for phase in self.plan.phases]
        width = max(len(phase.name) for phase, _ in rows)
        for phase, status in rows:
            state = status.get("state", "missing")
            told = f"{state}{'' if phase.name in self.trained_here or state != 'finished' else ' before'}"
            metrics = ", ".join(_headlines(status))
            yield f"  {phase.name:<{width}}  {told:<15}  {status.get('seconds', 0):8.1f} s  {phase.folder}  {metrics}".rstrip()


def _headlines(status: Mapping[str, Any]) -> list[str]:
    best, metrics = status.get("best") or {}, status.get("metrics") or {}
    by = best.get("metric")
    found = [f"best {by} {best['value']:.4g}"] if by else []
    shown: Sequence[str] = [name for name in HEADLINES if metrics.get(name) is not None and name != by]
    return [*found, *(f"{name} {metrics[name]:.4g}" for name in shown)]
