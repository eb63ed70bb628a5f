"""metrics.jsonl is the truth; W&B is a mirror that may fail without harm."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm.contracts.settings import LoggingSettings
from vlm.contracts.writing import finite, write_whole

log = logging.getLogger(__name__)


class MetricLog:
    """One JSON object a line, flushed as written.

    On resume, rows beyond the checkpoint's step are dropped, and of that step what is done again: a test, and a
    validation unless the checkpoint was written after it (validated).
    """

    def __init__(self, path: Path, from_step: int, validated: bool = True) -> None:
        self.path = path
        again = ("test/",) if validated else ("test/", "val/")
        drop_beyond(path, from_step, again)
        self.file = path.open("a", buffering=1)

    def write(self, row: Mapping[str, float]) -> None:
        self.file.write(json.dumps(finite(row)) + "\n")

    def close(self) -> None:
        self.file.close()


def drop_beyond(path: Path, step: int, again: tuple[str, ...] = ()) -> None:
    """Take back the lines of what is done again, so that a resumed run leaves what an undisturbed one does.

    again: beginnings of the keys by which a line of `step` itself is known as such.
    """

    def stays(line: str) -> bool:
        try:
            row = json.loads(line)
        except ValueError:
            return False  # the last line of a killed process may be cut short
        return row["step"] < step or (row["step"] == step and not any(key.startswith(again) for key in row))

    if path.exists():
        kept = [line for line in path.read_text().splitlines() if stays(line)]
        write_whole(path, (f"{line}\n" for line in kept))


class WandbMirror:
    """The same rows in a W&B run; any failure is reported once and ends the mirror, never the training.

    A run that ends well leaves its saved model as an artifact by reference: names, sizes and checksums of the files, and
    the runs whose weights it began with. No weights are copied or uploaded.
    """

    def __init__(
        self,
        settings: LoggingSettings,
        folder: Path,
        run_id: str,
        job_type: str,
        tags: list[str],
        config: Mapping[str, Any],
    ) -> None:
        self.run: Any = None
        self.folder, self.name = folder, f"{config['name']}-{run_id}"
        self.lineage = lineage(config)
        if settings.wandb == "disabled":
            return
        try:
            import wandb

            self.run = wandb.init(
                mode=settings.wandb,
                project=settings.project,
                id=run_id,
                resume="allow",
                name=f"{config['name']}/{run_id}",
                group=settings.group or os.environ.get("VLM_SWEEP"),
                job_type=job_type,
                tags=tags,
                dir=str(folder),
                config=dict(config),
                settings=wandb.Settings(
                    x_disable_stats=True,
                    console="off",
                    silent=True,
                    disable_git=True,
                    disable_code=True,
                    init_timeout=20,
                ),
            )
            self.run.define_metric("*", step_metric="step")
            if self.lineage:
                self.run.config.update({"lineage": self.lineage}, allow_val_change=True)
            if (
                settings.wandb == "online"
            ):  # offline nothing can be looked up: the lineage stands in config and metadata
                for name in dict.fromkeys(name for name in self.lineage.values() if "/" not in name):
                    self._use(name)
        except Exception as error:  # noqa: BLE001 - whatever the mirror's trouble is, the run goes on without it
            self._give_up(error)

    def write(self, row: Mapping[str, float]) -> None:
        self._guarded(lambda: self.run.log(dict(row)))

    def tables(self, tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]) -> None:
        """name -> columns and rows; a cell that is a path is a picture."""
        self._guarded(lambda: self.run.log({name: _table(*content) for name, content in tables.items()}))

    def finish(self, failed: bool) -> None:
        if self.run is not None and not failed and (self.folder / "model").is_dir():
            self._add(self.folder / "model")
        self._guarded(lambda: self.run.finish(exit_code=int(failed)))

    def _add(self, model: Path) -> None:
        try:
            import wandb

            metadata = {"lineage": self.lineage, "folder": str(model.resolve())}
            artifact = wandb.Artifact(self.name, type="model", metadata=metadata)
            for file in sorted(path for path in model.resolve().rglob("*") if path.is_file()):
                artifact.add_reference(file.as_uri(), name=file.relative_to(model.resolve()).as_posix())
            self.run.log_artifact(artifact)
        except Exception as error:  # noqa: BLE001 - the run's numbers stay, whatever becomes of its artifact
            log.warning("W&B: %s is no artifact (%s: %s)", model, type(error).__name__, str(error)[:300])

    def _use(self, name: str) -> None:
        try:
            self.run.use_artifact(f"{name}:latest")
        except Exception as error:  # noqa: BLE001 - its run may have been logged elsewhere, or not at all
            log.info(
                "W&B knows no artifact %s (%s); the lineage stands in the run's config", name, type(error).__name__
            )

    def _guarded(self, call: Any) -> None:
        if self.run is None:
            return
        try:
            call()
        except Exception as error:  # noqa: BLE001 - as above
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        log.warning(
            "W&B is switched off for this run (%s: %s); metrics.jsonl goes on", type(error).__name__, str(error)[:300]
        )
        self.run = None


def lineage(config: Mapping[str, Any]) -> dict[str, str]:
    """Key (init_from, weights.PART) -> artifact of the run that gives the weights; of a folder that is no run its path."""
    parts = {f"weights.{part}": source for part, source in (config.get("weights") or {}).items()}
    sources = {"init_from": config.get("init_from"), **parts}
    return {key: _artifact(Path(source)) for key, source in sources.items() if source is not None}


def _artifact(source: Path) -> str:
    run = source.resolve()
    return f"{run.parent.name}-{run.name}" if (run / "status.json").exists() else str(run)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    import wandb

    shown = [[wandb.Image(str(cell)) if isinstance(cell, Path) else cell for cell in row] for row in rows]
    return wandb.Table(columns=list(columns), data=shown)  # type: ignore[arg-type]
