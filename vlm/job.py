"""The work inside a run folder: data, model, phase and trainer put together, carried out and written down."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.distributed.fsdp import FSDPModule

from vlm import preflight
from vlm.benchmarks import prepared_benchmark
from vlm.contracts.errors import BrokenStep, InputError, RunError
from vlm.contracts.settings import RunConfig
from vlm.data import sources
from vlm.data.loader import Loader, Reading, Rows, Steps, end_workers, validation_loader
from vlm.data.order import Mix
from vlm.data.plan import Planner, micro_batch_of
from vlm.evaluation.answers import ask, exact_match, write_samples
from vlm.evaluation.watch import Watch, Watched
from vlm.library import make
from vlm.models.assemble import create
from vlm.models.recompute import recompute
from vlm.phases.base import Phase
from vlm.training import checkpoint
from vlm.training.callbacks import Recorder, Saver
from vlm.training.failures import explained
from vlm.training.folder import RunFolder, recipe_id, write_json
from vlm.training.given import load_given, trained_adapters
from vlm.training.ledger import Ledger
from vlm.training.log import MetricLog, WandbMirror, drop_beyond
from vlm.training.optim import make_optimizer
from vlm.training.ranks import rank
from vlm.training.sharding import strategy
from vlm.training.snapshot import restore_model
from vlm.training.sums import Sums
from vlm.training.weights import save_model

log = logging.getLogger(__name__)
VALIDATION_BATCH = 64  # rows; enough that every row finds another one's picture


class Job:
    """One process's part of a run; of several, the first alone writes into the folder.

    config: the resolved configuration; settings: the same, typed; tags: for W&B.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        settings: RunConfig,
        folder: RunFolder,
        data: sources.Opened,
        tags: Sequence[str],
    ) -> None:
        self.config, self.settings, self.folder, self.tags = config, settings, folder, list(tags)
        self.slices, self.data_record = data.slices, data.record
        self.mix = sources.training_mix(data, settings.data, settings.seed)
        self.phase_config = config["phase"]
        self.hardware = settings.hardware
        self.speaks = settings.llm is not None  # else it compares pictures with captions
        self.rank = rank()
        self.micro_batch = micro_batch_of(
            self.phase_config["global_batch"], self.hardware.micro_batch, self.hardware.world
        )
        if self.hardware.threads is not None:
            torch.set_num_threads(self.hardware.threads)

    def prepare(self) -> None:
        """Everything that can be refused, before the run folder exists: weights, tokenizer, first rows, checkpoint."""
        if self.hardware.accelerator == "gpu" and not torch.cuda.is_available():
            raise InputError("hardware.accelerator: gpu, but torch sees no CUDA device; choose hardware=cpu")
        if self.hardware.memory_gb is not None:
            device = self.rank % self.hardware.devices
            whole = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, self.hardware.memory_gb * 2**30 / whole), device)
        torch.manual_seed(self.settings.seed)
        self.model: Any = make(self.config)
        self.model.processor.overflow = self.settings.data.overflow
        adapters = trained_adapters(
            getattr(getattr(self.model, "llm", None), "adapters", ()), self.phase_config["trainable"]
        )
        load_given(self.model, self.settings.weights, self.settings.init_from, adapters)
        self._prepare_tokenizer()
        self.phase: Phase = create(self.phase_config, model=self.model, seed=self.settings.seed)
        if not self.phase.pairs and (paired := sources.pairs(self.slices["train"])):
            log.warning(
                "%s: pairs; their chosen answers are learned, the rejected ones are not read", ", ".join(paired)
            )
        self.rows = self._training_rows()
        self.phase.total_steps = self._steps()
        self.phase.sets = len(self.slices["train"])
        self.phase.frozen = checkpoint.fingerprint(self.model)
        self.phase.recipe = recipe_id(self.config)
        self.phase.watch = Watch(self._watched())
        self.state = self._state()
        if self.state is not None:
            restore_model(self.model, self.state)
            self.phase.unlogged = Sums(numbers=self.state.unlogged)
            self.phase.step = self.state.step
            every = self.phase_config["validate_every"]
            if self.state.validated and self.slices["validate"] and self.state.step % every == 0:
                self.phase.validated_at = self.state.step
        if self.hardware.recompute:
            recompute(self.model)

    def run(self) -> None:
        """Train to the end, then validate, test, save the model and let it speak."""
        packs = self.speaks  # rows that are compared with each other stay rows, as many on every rank
        if not packs and self.hardware.pack and self.rank == 0:
            log.info(
                "hardware.pack and micro_tokens say nothing to a model of two towers; micro_batch bounds its memory"
            )
        planner = Planner(
            self.phase_config["global_batch"],
            self.micro_batch,
            self.hardware.world,
            self.hardware.micro_tokens if packs else None,
            self.rows.cost if packs else None,
        )
        steps = Steps(
            self.rows,
            planner,
            self.phase.step,
            self.rank,
            self.hardware.workers,
            self.hardware.timeout_s,
            self.hardware.pack and packs,
        )
        if self.rank == 0:
            log.info("data: %s", _expected(self.asked, self.phase.total_steps * self.phase_config["global_batch"]))
        names = [part.name for part in self.slices["train"]]
        reading, path = self.settings.data, self.folder.path / "skipped.jsonl"
        ledger = Ledger(names, reading.skip_budget, path, reading.overflow, "llm" if self.speaks else "text")
        if self.state is not None:
            ledger.restore(self.state.counters)
        checkpoints = checkpoint.Checkpoints(self.folder.path / "checkpoints", self.phase.keep)
        validation = self._validation_loader()
        every = self.phase_config["validate_every"] if validation else None
        saver = Saver(checkpoints, ledger, self.phase_config["save_every"], every, self.state, self._facts())
        with contextlib.ExitStack() as stack:
            stack.callback(checkpoints.close)
            stack.callback(saver.restore_signals)
            stack.callback(end_workers)
            saver.take_signals()
            recorder = stack.enter_context(self._recorder(ledger, steps)) if self.rank == 0 else None
            stack.enter_context(_quiet())
            callbacks = [ledger, *([recorder] if recorder else []), saver]
            trainer = self._trainer(callbacks, every)
            try:
                if self.state is not None:
                    log.info("going on from step %d", self.state.step)
                    if not self.state.validated and validation is not None:
                        trainer.validate(self.phase, validation, verbose=False)
                elif self.phase.validates_first and validation is not None:
                    trainer.validate(self.phase, validation, verbose=False)
                trainer.fit(self.phase, steps, validation)
                checkpoints.wait()
                if validation is not None and self.phase.validated_at != self.phase.total_steps:
                    trainer.validate(self.phase, validation, verbose=False)
                saver.is_over = True
                self._finish(recorder)
            except Exception as error:
                told = explained(error, self.hardware.timeout_s, self.phase.step, self.phase.working_on)
                if isinstance(told, BrokenStep):
                    self._name_samples()
                    told = type(told)(f"{self.folder.path}: {told}")
                if told is error:
                    raise
                raise told from error

    @contextlib.contextmanager
    def _recorder(self, ledger: Ledger, steps: Steps) -> Iterator[Recorder]:
        """The files and the mirror that a run is written down in, from the step it starts at."""
        drop_beyond(ledger.path, self.phase.step)
        metrics = MetricLog(
            self.folder.path / "metrics.jsonl", self.phase.step, validated=self.phase.validated_at == self.phase.step
        )
        job_type = type(self.phase).__name__.lower()
        mirror = WandbMirror(
            self.settings.logging, self.folder.path, self.folder.path.name, job_type, self.tags, self.config
        )
        every, progress = self.phase_config["log_every"], self.settings.logging.progress
        recorder = Recorder(self.folder, metrics, mirror, ledger, steps, every, self.phase.keep, progress)
        failed = True
        try:
            self._keep_tokenizer()
            yield recorder
            failed = False
        finally:
            self.folder.update(step=self.phase.step, data=recorder.data())
            recorder.close()
            metrics.close()
            mirror.finish(failed)

    def _finish(self, recorder: Recorder | None) -> None:
        """Every rank does the same, as parts of the model may lie on others; the first one writes it down."""
        # Before anything that may still go wrong: what was trained is safe.
        save_model(self.model, self.folder.path / "model", write=recorder is not None)
        if isinstance(self.model, FSDPModule):
            self.model.unshard()  # for the parts that answers call by themselves
        model: Any = self.model
        prompts = self.settings.data.prompts
        if not self.speaks:
            return self._record_data(recorder)
        if self.slices["test"]:
            try:
                row = exact_match(model, self.slices["test"], prompts)
            except InputError as error:
                raise RunError(f"the model is trained and saved, but its test set cannot be scored: {error}") from error
            if recorder:
                recorder.write(self.phase.total_steps, row)
                recorder.note(self.phase.total_steps, row)
        shown = self.slices["validate"] or self.slices["test"] or self.slices["train"]
        said = list(ask(model, shown, prompts, self.phase_config["samples"], to_show=True))
        if recorder:
            write_samples(said, self.folder.path / "samples")
        self._record_data(recorder)

    def _record_data(self, recorder: Recorder | None) -> None:
        """What was read, beside what was asked for."""
        if recorder:
            data = recorder.data()
            recorder.warn_of_shares(self.asked)
            log.info("data: %s; %s", _delivered(self.asked, data["delivered"]), recorder.ledger.closing())
            write_json(self.folder.path / "data.json", {**self.data_record, "asked": self.asked, **data})

    def _watched(self) -> list[Watched]:
        """The benchmarks that are scored at each validation. Raises: InputError for files that are not there."""
        uses = {name: use for name, use in self.settings.benchmarks.items() if use is not None}
        return [
            Watched(prepared_benchmark(name, use.change, self.settings.paths.data), use.limit, self.speaks)
            for name, use in uses.items()
        ]

    def _facts(self) -> dict[str, Any]:
        """What decides the run beside its configuration."""
        words = self.model.processor.tokenizer.fingerprint
        return {"frozen weights": self.phase.frozen, "tokenizer": words, "data": self.data_record["sets"]["train"]}

    def _trainer(self, callbacks: list[Any], validate_every: int | None) -> lightning.Trainer:
        return lightning.Trainer(
            accelerator=self.hardware.accelerator,
            devices=self.hardware.devices,
            num_nodes=self.hardware.nodes,
            strategy=strategy(self.hardware, self.model),
            precision=self.hardware.precision,
            max_steps=self.phase.total_steps,
            max_epochs=-1,
            val_check_interval=validate_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
        )

    @property
    def asked(self) -> dict[str, float]:
        """The share of all training samples that each set is to give."""
        return sources.asked(self.slices["train"])

    def _training_rows(self) -> Rows:
        """With what the first rows show about lengths and sizes. Raises: InputError if none can be used."""
        rows = self._rows(self.slices["train"], self.mix, self.settings.seed)
        tried = preflight.first_rows(rows)
        preflight.refuse_small_shared_memory(self.hardware, self.micro_batch, [example for example, _ in tried])
        rows.reading = replace(rows.reading, bytes_a_token=preflight.bytes_a_token(tried))
        return rows

    def _rows(self, slices: Sequence[sources.Slice], mix: Mix, seed: int | None) -> Rows:
        data = self.settings.data
        reading = Reading(data.prompts, self.phase.all_text, data.cache_gb, seed, pairs=self.phase.pairs)
        return Rows(slices, mix, self.model.processor, reading)

    def _validation_loader(self) -> Loader | None:
        if not self.slices["validate"]:
            return None
        mix = sources.one_after_the_other(self.slices["validate"])
        batch = max(VALIDATION_BATCH, self.micro_batch)
        self.phase.validation_batches = -(-mix.length // batch)
        return validation_loader(
            self._rows(self.slices["validate"], mix, None),
            batch,
            self.rank,
            self.hardware.world,
            self.hardware.workers,
            self.hardware.timeout_s,
        )

    def _steps(self) -> int:
        """max_steps, or epochs over the training rows, a started step counted whole."""
        phase = self.phase_config
        if phase["max_steps"] is not None:
            return phase["max_steps"]
        return max(1, math.ceil(phase["epochs"] * self.mix.length / phase["global_batch"]))

    def _state(self) -> checkpoint.State | None:
        """The newest checkpoint that is whole, of this run, or else of the run named by `resume`."""
        folder = self.folder.path
        state = checkpoint.newest(folder / "checkpoints")
        if state is None and self.settings.resume is not None:
            folder = Path(self.settings.resume)
            state = checkpoint.newest(folder / "checkpoints")
            if state is None:
                raise InputError(f"resume: {folder} has no checkpoint; give a run folder that has one")
            if state.step >= self.phase.total_steps:
                raise InputError(
                    f"resume: {folder} is at step {state.step} already, and this run has {self.phase.total_steps} "
                    "steps; raise phase.max_steps or phase.epochs"
                )
        if state is not None:
            groups = make_optimizer(self.model, self.phase.trainable, self.phase.optimizer_settings).param_groups
            faults = checkpoint.differences(state, self.model, [group["path"] for group in groups], self.phase.recipe)
            if faults:
                raise InputError(
                    f"{folder}: its checkpoint belongs to another model or recipe: {faults}; give the run that fits"
                )
        return state

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
        prompts = [prompt for prompt in self.settings.data.prompts if prompt]
        tokenizer.fit(chain(prompts, sources.texts(self.slices["train"])))

    def _keep_tokenizer(self) -> None:
        """A learned tokenizer is part of the state from which the run goes on."""
        path = self.folder.path / "checkpoints" / "tokenizer.json"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            self.model.processor.tokenizer.save(path.with_suffix(".part"))  # other ranks may look for it at any time
            path.with_suffix(".part").replace(path)

    def _name_samples(self) -> None:
        """The samples of a step that broke, for who wants to look at them; each rank tells its own."""
        name = "failed_batch.json" if self.rank == 0 else f"failed_batch_{self.rank}.json"
        write_json(self.folder.path / name, {"step": self.phase.step, "keys": self.phase.keys})


def _expected(asked: Mapping[str, float], samples: int) -> str:
    """What each set is to give to the whole run, in words."""
    parts = [f"{name} {share:.2%} (about {round(share * samples):,})" for name, share in asked.items()]
    return f"{samples:,} samples asked for: " + ", ".join(parts)


def _delivered(asked: Mapping[str, float], delivered: Mapping[str, Any]) -> str:
    """Shares asked for and delivered, in words."""
    parts = [
        f"{name} {delivered[name]['share']:.2%} of samples (asked {share:.2%}), "
        f"{delivered[name]['token_share']:.2%} of tokens"
        for name, share in asked.items()
    ]
    return "; ".join(parts)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's hints about loaders and loggers do not fit a run that brings its own."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=r".*lr_scheduler\.step\(\).*")
        warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view")  # nobody writes into it
        yield
