"""A look at the first training rows and at the machine, before anything is made."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from vlm.contracts.batch import VISUAL
from vlm.contracts.errors import InputError
from vlm.contracts.example import Example
from vlm.contracts.settings import HardwareProfile
from vlm.data.loader import PREFETCH, Rows

log = logging.getLogger(__name__)
TRIED = 16  # training rows
SHARED_MEMORY = Path("/dev/shm")


def first_rows(rows: Rows) -> list[tuple[Example, int]]:
    """The first rows that can be used, each with the stored bytes of its text (0 without an index).

    Raises: InputError if there is none, or none with a picture for a model with an encoder: then data and model do not
    belong together.
    """
    faults, tried = [], []
    for position in range(min(TRIED, rows.mix.length)):
        place = rows.mix.place(position)
        part = rows.slices[place.source]
        try:
            example = rows.example(place, position)
        except InputError as error:
            faults.append(f"  {part.name} row {place.row}: {error}")
            continue
        stored = part.costs(place.row)
        tried.append((example, stored.text_bytes if stored else 0))
    if not tried:
        listing = "\n".join(faults[:3])
        raise InputError(f"none of the first {len(faults)} training rows can be used by this model:\n{listing}")
    if not any(example.slots for example, _ in tried) and rows.processor.tokens_a_view:
        raise InputError(
            f"none of the first {len(tried)} training rows has a picture, but this model has an encoder to train with; "
            "choose data with pictures, or encoder=none connector=none"
        )
    return tried


def bytes_a_token(tried: Sequence[tuple[Example, int]]) -> float | None:
    """Stored bytes a text token, by which the index tells lengths; None if no row has an index."""
    stored = sum(size for _, size in tried)
    text = sum(int((example.ids != VISUAL).sum()) for example, size in tried if size)
    return stored / text if text else None


def refuse_small_shared_memory(hardware: HardwareProfile, micro_batch: int, examples: Sequence[Example]) -> None:
    """Batches travel from data workers by shared memory, and a full one ends them with a bus error in mid-run."""
    if not hardware.workers or not SHARED_MEMORY.is_dir():
        return
    batches = hardware.workers * PREFETCH * hardware.devices
    needed = batches * micro_batch * max(example.bytes for example in examples)
    free = shutil.disk_usage(SHARED_MEMORY).free
    log.info("data workers hold up to %d batches ready, about %.2f GB of %s", batches, needed / 2**30, SHARED_MEMORY)
    if needed > free:
        raise InputError(
            f"hardware.workers: {hardware.workers} data workers would hold about {needed / 2**30:.2f} GB ready, but "
            f"{SHARED_MEMORY} has {free / 2**30:.2f} GB free; mount a larger one (docker: --shm-size), or lower "
            "hardware.workers or hardware.micro_batch"
        )
