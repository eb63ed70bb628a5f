"""The work inside a run folder: data, model, phase and trainer put together, carried out and written down."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader

from vlm.contracts.errors import InputError
from vlm.contracts.parts import PARTS
from vlm.contracts.settings import RunConfig
from vlm.data import sources
from vlm.data.loader import GlobalBatches, OncePerRow, Rows, loader
from vlm.data.order import Mix
from vlm.data.sources import Slice
from vlm.evaluation.answers import exact_match, write_samples
from vlm.library import make
from vlm.models.assemble import create
from vlm.models.vlm import VLM
from vlm.phases.base import Phase
from vlm.training import checkpoint
from vlm.training.callbacks import Recorder, Saver
from vlm.training.folder import RunFolder
from vlm.training.log import MetricLog, WandbMirror
from vlm.training.weights import load_part, model_folder, save_model

log = logging.getLogger(__name__)
VALIDATION_BATCH = 64  # rows; enough that every row finds another one's picture
PREFLIGHT = 16  # training rows tried before anything is made


class Job:
    """config: the resolved configuration; settings: the same, typed; tags: for W&B."""

    def __init__(
        self,
        config: Mapping[str, Any],
        settings: RunConfig,
        folder: RunFolder,
        data: sources.Opened,
        tags: Sequence[str],
    ) -> None:
        self.config, self.settings, self.folder, self.tags = config, settings, folder, list(tags)
        self.slices = data.slices
        rows = [len(part) for part in data.slices["train"]]
        self.mix = Mix(rows, data.weights, settings.seed, settings.data.shuffle)
        self.phase_config = config["phase"]
        if settings.hardware.threads is not None:
            torch.set_num_threads(settings.hardware.threads)

    def prepare(self) -> None:
        """Everything that can be refused, before the run folder exists: weights, tokenizer, first rows, checkpoint."""
        if self.settings.hardware.accelerator == "gpu" and not torch.cuda.is_available():
            raise InputError("hardware.accelerator: gpu, but torch sees no CUDA device; choose hardware=cpu")
        self.total_steps = self._steps()
        torch.manual_seed(self.settings.seed)
        self.model: VLM = make(self.config)
        self._load_weights()
        self._prepare_tokenizer()
        self.rows = self._rows(self.slices["train"], self.mix)
        self._preflight()
        self.phase: Phase = create(self.phase_config, model=self.model, seed=self.settings.seed)
        self.phase.total_steps = self.total_steps
        self.resume_from = self._resume_from()

    def run(self) -> None:
        """Train to the end, then validate, test, save the model and let it speak."""
        step = checkpoint.step_of(self.resume_from) if self.resume_from else 0
        micro = self.settings.hardware.micro_batch or self.phase_config["global_batch"]
        self.phase.accumulate = self.phase_config["global_batch"] // micro
        self._keep_tokenizer()
        metrics = MetricLog(self.folder.path / "metrics.jsonl", step)
        job_type = type(self.phase).__name__.lower()
        mirror = WandbMirror(
            self.settings.logging, self.folder.path, self.folder.path.name, job_type, self.tags, self.config
        )
        recorder = Recorder(
            self.folder,
            metrics,
            mirror,
            self.phase_config["log_every"],
            self.settings.data.skip_budget,
            self.settings.logging.progress,
        )
        saver = Saver(self.folder, self.phase_config["save_every"])
        failed = True
        try:
            with _quiet():
                trainer = self._trainer([recorder, saver])
                batches = GlobalBatches(self.phase_config["global_batch"], micro, 0, 1, start=step)
                validation = self._validation_loader(self.slices["validate"])
                if step:
                    log.info("going on from %s", self.resume_from)
                trainer.fit(
                    self.phase,
                    loader(self.rows, batches, self.settings.hardware.workers),
                    validation,
                    ckpt_path=str(self.resume_from) if self.resume_from else None,
                )
                self._finish(trainer, recorder, validation)
            failed = False
        finally:
            saver.restore_signals()
            recorder.close()
            metrics.close()
            mirror.finish(failed)

    def _finish(self, trainer: lightning.Trainer, recorder: Recorder, validation: DataLoader | None) -> None:
        if validation is not None and not recorder.validated_at(self.total_steps):
            trainer.validate(self.phase, validation, verbose=False)
        prompts = self.settings.data.prompts
        if self.slices["test"]:
            row = exact_match(self.model, self.slices["test"], prompts)
            recorder.write(self.total_steps, row)
            recorder.note(self.total_steps, row)
        save_model(self.model, self.folder.path / "model")
        shown = self.slices["validate"] or self.slices["test"] or self.slices["train"]
        write_samples(self.model, shown, prompts, self.phase_config["samples"], self.folder.path / "samples")
        self.folder.update(step=self.total_steps)

    def _trainer(self, callbacks: list[Any]) -> lightning.Trainer:
        has_validation = bool(self.slices["validate"])
        return lightning.Trainer(
            accelerator=self.settings.hardware.accelerator,
            devices=1,
            precision=self.settings.hardware.precision,
            max_steps=self.total_steps,
            max_epochs=-1,
            accumulate_grad_batches=self.phase.accumulate,
            val_check_interval=self.phase_config["validate_every"] * self.phase.accumulate if has_validation else None,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
        )

    def _rows(self, slices: list[Slice], mix: Mix) -> Rows:
        data = self.settings.data
        all_text = self.phase_config["targets"] == "all"
        return Rows(slices, mix, self.model.processor, data.prompts, all_text, data.cache_gb)

    def _validation_loader(self, slices: list[Slice]) -> DataLoader | None:
        if not slices:
            return None
        mix = Mix([len(part) for part in slices], [1.0] * len(slices), seed=0, shuffle=False)
        micro = self.settings.hardware.micro_batch or self.phase_config["global_batch"]
        batches = OncePerRow(mix.length, max(VALIDATION_BATCH, micro), 0, 1)
        return loader(self._rows(slices, mix), batches, self.settings.hardware.workers)

    def _steps(self) -> int:
        """max_steps, or epochs over the training rows, a started step counted whole."""
        phase = self.phase_config
        if phase["max_steps"] is not None:
            return phase["max_steps"]
        return max(1, math.ceil(phase["epochs"] * self.mix.length / phase["global_batch"]))

    def _resume_from(self) -> Path | None:
        """The newest checkpoint that can be read, of this run, or else of the run named by `resume`."""
        own = checkpoint.newest(self.folder.path / "checkpoints", self.phase)
        if own or self.settings.resume is None:
            return own
        other = checkpoint.newest(Path(self.settings.resume) / "checkpoints", self.phase)
        if other is None:
            raise InputError(f"resume: {self.settings.resume} has no checkpoint; give a run folder that has one")
        if checkpoint.step_of(other) >= self.total_steps:
            raise InputError(
                f"resume: {self.settings.resume} is at step {checkpoint.step_of(other)} already, and this run has "
                f"{self.total_steps} steps; raise phase.max_steps or phase.epochs"
            )
        return other

    def _load_weights(self) -> None:
        given = {part: source for part, source in self.settings.weights.items() if source is not None}
        if self.settings.init_from is not None:
            given = {part: self.settings.init_from for part in PARTS} | given
        for part, source in given.items():
            load_part(self.model, part, model_folder(source))
        if "llm" in given:
            learned = model_folder(given["llm"]) / "tokenizer.json"
            if learned.exists():
                self.model.processor.tokenizer.load(learned)

    def _prepare_tokenizer(self) -> None:
        """From the weights' folder, from this run's or the resumed one's, or learned from the training texts."""
        tokenizer = self.model.processor.tokenizer
        if tokenizer.ready:
            return
        runs = [self.folder.path, *([Path(self.settings.resume)] if self.settings.resume else [])]
        for path in (run / "checkpoints" / "tokenizer.json" for run in runs):
            if path.exists():
                tokenizer.load(path)
                return
        log.info("learning the tokenizer from the training texts")
        tokenizer.fit(sources.texts(self.slices["train"]))

    def _keep_tokenizer(self) -> None:
        """A learned tokenizer is part of the state from which the run goes on."""
        path = self.folder.path / "checkpoints" / "tokenizer.json"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            self.model.processor.tokenizer.save(path)

    def _preflight(self) -> None:
        """If none of the first rows can be used, or none has a picture, data and model do not belong together."""
        faults, usable, pictures = [], 0, 0
        for position in range(min(PREFLIGHT, self.mix.length)):
            place = self.mix.place(position)
            try:
                example = self.rows.example(place)
            except InputError as error:
                faults.append(f"  {self.slices['train'][place.source].name} row {place.row}: {error}")
            else:
                usable, pictures = usable + 1, pictures + len(example.slots)
        if not usable:
            listing = "\n".join(faults[:3])
            raise InputError(f"none of the first {len(faults)} training rows can be used by this model:\n{listing}")
        if not pictures:
            raise InputError(
                f"none of the first {usable} training rows has a picture, but this model has an encoder to train with; "
                "choose data with pictures"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's hints about loaders and loggers do not fit a run that brings its own."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=r".*lr_scheduler\.step\(\).*")
        yield
