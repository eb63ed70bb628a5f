"""Positions to the micro-batches of optimizer steps, with a ledger of what was skipped on the way."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from vlm.contracts.batch import Batch
from vlm.contracts.errors import InputError, RunError
from vlm.contracts.example import Example
from vlm.contracts.sample import Sample, Turn
from vlm.data.order import Mix, Place, mixed
from vlm.data.plan import Cost, Planner, batches_once, steps_from
from vlm.data.processor import Processor
from vlm.data.sources import Slice

RETRIES = 16  # replacements tried for one position before the data as a whole is called unreadable
PREFETCH = 2  # micro-batches that each worker process holds ready


@dataclass(frozen=True)
class Skip:
    """A row of a set that could not be used. reason: a name of the data rules.   detail: what was found."""

    set: str
    row: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Item:
    """An example, the number of its set, and the rows that were skipped to get it; None if nothing replaces them."""

    example: Example | None
    source: int = 0
    skipped: tuple[Skip, ...] = ()


@dataclass  # not frozen, for the same reason as Batch
class Loaded:
    """A batch and what was skipped on the way.

    sources: the set of each sample.   cut: answers that were shortened to fit.
    """

    batch: Batch
    sources: tuple[int, ...]
    skipped: tuple[Skip, ...]
    cut: int


@dataclass
class Step:
    """What one process works off in one optimizer step."""

    micro_batches: list[Loaded] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """How rows are turned into examples. seed: of the training run's augmentation, None for none.

    cache_gb: memory for examples that are ready to batch, of each process that reads.
    bytes_a_token: of stored text, for what the index says about lengths; None = lengths are not asked for.
    pairs: whether rows are preference pairs, of which both answers are read; a row that is none is skipped by name.
    """

    prompts: Sequence[str]
    all_text: bool
    cache_gb: float
    seed: int | None = None
    bytes_a_token: float | None = None
    pairs: bool = False


class Rows(Dataset):
    """position -> Item.

    A row that cannot be used is replaced by another, drawn by a pure function of (seed, position, attempt), so that
    the order stays reproducible; without a seed (a validation) nothing replaces it, as no row should count twice. What
    was skipped travels with the item.
    """

    def __init__(self, slices: Sequence[Slice], mix: Mix, processor: Processor, reading: Reading) -> None:
        self.slices, self.mix, self.processor, self.reading = slices, mix, processor, reading
        self._free = int(reading.cache_gb * 2**30)
        self._cache: dict[tuple[int, int], dict[int, Example]] = {}
        self._choices: dict[tuple[int, int], int] = {}

    def __getitem__(self, position: int) -> Item:
        skipped: list[Skip] = []
        for attempt in range(RETRIES):
            place = self.mix.place(position) if attempt == 0 else self.mix.replacement(position, attempt)
            try:
                return Item(self.example(place, position), place.source, tuple(skipped))
            except InputError as error:
                reason, _, detail = str(error).partition(": ")
                part = self.slices[place.source]
                skipped.append(Skip(part.name, part.start + place.row, reason, detail))
            if self.reading.seed is None:
                return Item(None, place.source, tuple(skipped))
        listing = "\n".join(f"  {skip.set} row {skip.row}: {skip.reason}: {skip.detail}" for skip in skipped[:5])
        raise RunError(f"{RETRIES} rows in a row cannot be used; the first of them:\n{listing}")

    def example(self, place: Place, position: int) -> Example:
        """position: decides the augmentation. Raises: InputError for a row that cannot be used."""
        at, visit = (place.source, place.row), place.visit
        kept = self._cache.get(at, {})
        # What a row looks like depends on the visit only if it has several captions, which the first read tells.
        found = kept.get(visit % self._choices[at]) if kept else None
        if found is not None:
            return found
        stored = self.slices[place.source][place.row]
        choices = max(1, len(stored.meta.get("captions", ())))
        augmented = self.reading.seed is not None and self.slices[place.source].augment
        seed = mixed(self.reading.seed, position) if augmented else None  # type: ignore[arg-type]
        conversation = as_conversation(stored, self.reading.prompts, visit)
        found = self.processor.example(conversation, self.reading.all_text, seed=seed, pair=self.reading.pairs)
        # Pixels that are drawn anew at each visit cannot be kept.
        if found.bytes <= self._free and not (augmented and self.processor.views.random):
            self._free -= found.bytes
            self._choices[at] = choices
            self._cache.setdefault(at, {})[visit % choices] = found
        return found

    def cost(self, position: int) -> Cost | None:
        """What the index says about the row at a position; None where there is no index."""
        place = self.mix.place(position)
        found = self.slices[place.source].costs(place.row)
        if found is None or self.reading.bytes_a_token is None:
            return None
        return self.processor.cost(found.text_bytes / self.reading.bytes_a_token, found.media, found.frames)


def as_conversation(sample: Sample, prompts: Sequence[str], visit: int) -> Sample:
    """A caption row with a prompt drawn by its key, and with caption number `visit` of those that it has."""
    captions = sample.meta.get("captions")
    turns = sample.turns
    if captions:
        number = (mixed(len(captions), *sample.key.encode()) + visit) % len(captions)
        turns = (*turns[:-1], Turn("assistant", (captions[number],)))
    if prompts and turns and turns[0].role == "user" and all(isinstance(part, int) for part in turns[0].parts):
        prompt = prompts[mixed(len(prompts), *sample.key.encode()) % len(prompts)]
        turns = (Turn("user", (*turns[0].parts, prompt)), *turns[1:])
    return replace(sample, turns=turns)


class Collate:
    """Items to Loaded; a class, so that worker processes can receive it."""

    def __init__(self, processor: Processor, pack: bool) -> None:
        self.processor, self.pack = processor, pack

    def __call__(self, items: Sequence[Item]) -> Loaded:
        examples = [item.example for item in items if item.example is not None]
        skipped = tuple(skip for item in items for skip in item.skipped)
        if not examples:
            raise RunError(f"none of {len(items)} validation rows can be used; the first: {skipped[0].detail}")
        return Loaded(
            batch=self.processor.collate(examples, pack=self.pack),
            sources=tuple(item.source for item in items if item.example is not None),
            skipped=skipped,
            cut=sum(example.cut for example in examples),
        )


class Loader(DataLoader):
    """Batches in the sampler's order. timeout_s: seconds without an answer after which a worker counts as hung.

    Workers are started afresh (not forked), so they import what reads data and nothing of the trainer. They are deaf
    to Ctrl-C, which the run itself answers: it still needs their batches to finish its step.
    """

    def __init__(self, rows: Rows, batches: Any, workers: int, timeout_s: float, pack: bool = False) -> None:
        super().__init__(
            rows,
            batch_sampler=batches,
            collate_fn=Collate(rows.processor, pack),
            num_workers=workers,
            timeout=timeout_s if workers else 0,
            persistent_workers=workers > 0,
            prefetch_factor=PREFETCH if workers else None,
            multiprocessing_context="spawn" if workers else None,
        )

    def __iter__(self) -> Iterator[Loaded]:  # type: ignore[override]
        with _handled(signal.SIGINT, signal.SIG_IGN):  # which the started processes inherit
            batches = super().__iter__()
        while True:
            # A process that stands still altogether does not even hand over what it has ready, and torch waits for
            # that without an end.
            watch = _Watch(self.timeout) if self.num_workers else contextlib.nullcontext()
            with watch:
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


class _Watch:
    """Ends the data workers if what happens inside takes longer than timeout_s, and says so."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s, self.expired = timeout_s, False
        self.timer = threading.Timer(timeout_s + 1, self._expire)

    def __enter__(self) -> None:
        self.timer.start()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.timer.cancel()
        if self.expired and isinstance(error, RuntimeError | OSError | EOFError):
            raise RuntimeError(f"DataLoader timed out after {self.timeout_s:g} seconds") from error
        if isinstance(error, InputError | RunError) and str(error).startswith("Caught"):
            # torch puts the worker's whole traceback in front of what it said
            raise type(error)(str(error).rpartition(f"{type(error).__name__}: ")[2].strip()) from None

    def _expire(self) -> None:
        self.expired = True
        end_workers()


def end_workers() -> None:
    """After an error: without waiting for their answer, as one that stands still would keep this process from ending."""
    with _handled(signal.SIGCHLD, signal.SIG_DFL):  # torch would tell their end as another error
        for worker in multiprocessing.active_children():
            worker.kill()
            worker.join()


@contextlib.contextmanager
def _handled(number: signal.Signals, handler: signal.Handlers) -> Iterator[None]:
    """Only the main thread may change what a signal does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


class Steps:
    """Optimizer steps from `start` on, without end: every micro-batch of a step that this rank works off."""

    def __init__(
        self, rows: Rows, planner: Planner, start: int, rank: int, workers: int, timeout_s: float, pack: bool
    ) -> None:
        self.sampler = StepSampler(planner, start, rank)
        self.loader = Loader(rows, self.sampler, workers, timeout_s, pack)
        self.waited = 0.0  # seconds that the trainer spent in here

    def __iter__(self) -> Iterator[Step]:
        begin = time.monotonic()
        batches = iter(self.loader)
        while True:
            step = Step([next(batches)])
            step.micro_batches += [next(batches) for _ in range(self.sampler.counts.popleft() - 1)]
            self.waited += time.monotonic() - begin
            yield step
            begin = time.monotonic()


class StepSampler(Sampler):
    """Positions of each micro-batch.   counts: micro-batches of each step that was begun, the oldest first."""

    def __init__(self, planner: Planner, start: int, rank: int) -> None:
        self.planner, self.start, self.rank = planner, start, rank
        self.counts: deque[int] = deque()

    def __iter__(self) -> Iterator[list[int]]:
        for micro_batches in steps_from(self.planner, self.start, self.rank):
            self.counts.append(len(micro_batches))
            yield from micro_batches


def validation_loader(rows: Rows, batch: int, rank: int, world: int, workers: int, timeout_s: float) -> Loader:
    """Every row once, as rows of their own, in batches whose content does not depend on the number of ranks."""
    return Loader(rows, batches_once(rows.mix.length, batch, rank, world), workers, timeout_s)
