"""Positions to batches: a map-style dataset, a sampler that starts anywhere, and a ledger of what was skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch.utils.data import DataLoader, Dataset, Sampler

from vlm.contracts.batch import Batch
from vlm.contracts.errors import InputError, RunError
from vlm.contracts.sample import Sample, Turn
from vlm.data.order import Mix, Place, mixed
from vlm.data.processor import Example, Processor
from vlm.data.sources import Slice

RETRIES = 16  # replacements tried for one position before the data as a whole is called unreadable


@dataclass(frozen=True)
class Skip:
    """A row that could not be used. reason: a name of the data rules.   detail: what was found."""

    set: str
    row: int
    reason: str
    detail: str


@dataclass(frozen=True)
class Item:
    """An example, and the rows that were skipped to get it."""

    example: Example
    skipped: tuple[Skip, ...] = ()


@dataclass  # not frozen, for the same reason as Batch
class Loaded:
    """A batch and what was skipped on the way. cut: answers that were shortened to fit."""

    batch: Batch
    skipped: tuple[Skip, ...]
    cut: int


class Rows(Dataset):
    """position -> Item.

    A row that cannot be used is replaced by another, drawn by a pure function of (seed, position, attempt), so that
    the order stays reproducible; what was skipped travels with the item. Examples are kept in memory while they fit
    into cache_gb (a worker process keeps its own share).
    """

    def __init__(
        self,
        slices: Sequence[Slice],
        mix: Mix,
        processor: Processor,
        prompts: Sequence[str],
        all_text: bool,
        cache_gb: float,
    ) -> None:
        self.slices, self.mix, self.processor = slices, mix, processor
        self.prompts, self.all_text = prompts, all_text
        self._free = int(cache_gb * 2**30)
        self._cache: dict[tuple[int, int, int], Example] = {}
        self._captions: dict[tuple[int, int], int] = {}

    def __getitem__(self, position: int) -> Item:
        skipped: list[Skip] = []
        for attempt in range(RETRIES):
            at = position if attempt == 0 else mixed(self.mix.seed, position, attempt) % self.mix.length
            place = self.mix.place(at)
            try:
                return Item(self.example(place), tuple(skipped))
            except InputError as error:
                reason, _, detail = str(error).partition(": ")
                skipped.append(Skip(self.slices[place.source].name, place.row, reason, detail))
        listing = "\n".join(f"  {skip.set} row {skip.row}: {skip.reason}: {skip.detail}" for skip in skipped[:5])
        raise RunError(f"{RETRIES} rows in a row cannot be used; the first of them:\n{listing}")

    def example(self, place: Place) -> Example:
        """Raises: InputError for a row that cannot be used."""
        source, row, visit = place.source, place.row, place.visit
        # What a row looks like depends on the visit only if it has several captions, which the first read tells.
        choices = self._captions.get((source, row), 1)
        found = self._cache.get((source, row, visit % choices))
        if found is not None:
            return found
        stored = self.slices[source][row]
        choices = self._captions[source, row] = max(1, len(stored.meta.get("captions", ())))
        found = self.processor.example(as_conversation(stored, self.prompts, visit), self.all_text)
        if found.bytes <= self._free:
            self._free -= found.bytes
            self._cache[source, row, visit % choices] = found
        return found


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


class GlobalBatches(Sampler):
    """Positions of each micro-batch of this rank, from optimizer step `start` on, without end.

    Step s covers positions [s * global_batch, (s + 1) * global_batch), whatever the hardware.
    """

    def __init__(self, global_batch: int, micro_batch: int, rank: int, world: int, start: int = 0) -> None:
        self.global_batch, self.micro_batch, self.rank, self.world = global_batch, micro_batch, rank, world
        self.start = start

    def __iter__(self) -> Iterator[list[int]]:
        share = self.micro_batch * self.world
        step = self.start
        while True:
            first = step * self.global_batch
            for micro in range(self.global_batch // share):
                begin = first + micro * share + self.rank
                yield list(range(begin, begin + share, self.world))
            step += 1


class OncePerRow(Sampler):
    """Positions 0 .. rows-1 in batches, the last one shorter; each rank takes every world-th batch."""

    def __init__(self, rows: int, batch: int, rank: int, world: int) -> None:
        self.batches = [list(range(begin, min(begin + batch, rows))) for begin in range(0, rows, batch)][rank::world]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Collate:
    """Items to Loaded; a class, so that worker processes can receive it."""

    def __init__(self, processor: Processor) -> None:
        self.processor = processor

    def __call__(self, items: Sequence[Item]) -> Loaded:
        examples = [item.example for item in items]
        return Loaded(
            batch=self.processor.collate(examples),
            skipped=tuple(skip for item in items for skip in item.skipped),
            cut=sum(example.cut for example in examples),
        )


def loader(rows: Rows, sampler: Sampler, workers: int) -> DataLoader:
    """Batches in the sampler's order; a worker that hangs for ten minutes is an error."""
    return DataLoader(
        rows,
        batch_sampler=sampler,
        collate_fn=Collate(rows.processor),
        num_workers=workers,
        timeout=600 if workers else 0,
        persistent_workers=workers > 0,
    )
