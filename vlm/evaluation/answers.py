"""What a model says in its own words: a few pictures to look at, and exact answers counted over a whole split."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from vlm.contracts.errors import InputError, RunError
from vlm.contracts.sample import Sample
from vlm.data.branches import conversations
from vlm.data.clips import still
from vlm.data.loader import as_conversation
from vlm.data.sources import Slice
from vlm.evaluation.intervals import wilson
from vlm.evaluation.thumbnails import thumbnail
from vlm.models.generation import answers
from vlm.models.vlm import VLM

log = logging.getLogger(__name__)
BATCH = 256  # rows decoded together


@dataclass(frozen=True)
class Answer:
    """prompt, what the model said, and what the data says."""

    sample: Sample
    prompt: str
    answer: str
    reference: str


def ask(
    model: VLM, slices: Sequence[Slice], prompts: Sequence[str], limit: int | None = None, to_show: bool = False
) -> Iterator[Answer]:
    """Greedy answers to the last turn of each row, in order; of `limit` rows, evenly spread.

    to_show: nothing is scored, so a row that cannot be used is left out and told, and of a conversation too long for
    the model an earlier turn is asked.
    Raises: InputError for a row that cannot be used: a score over fewer rows than it names would be no score.
    """
    rows = [(part, row) for part in slices for row in range(len(part))]
    if limit is not None and limit < len(rows):
        rows = [rows[number * len(rows) // limit] for number in range(limit)]
    for begin in tqdm(range(0, len(rows), BATCH), desc="answering", unit="batch", leave=False, disable=None):
        samples, opened = [], []
        for part, row in rows[begin : begin + BATCH]:
            try:
                sample = _last_question(as_conversation(part[row], prompts, 0))
                sample = _shortened(model, sample) if to_show else sample
                opened.append(model.processor.open_example(replace(sample, turns=sample.turns[:-1])))
            except InputError as error:
                if not to_show:
                    raise
                log.warning("%s row %d is not shown: %s", part.name, row, error)
            else:
                samples.append(sample)
        if not samples:
            continue
        for sample, said in zip(samples, answers(model, opened), strict=True):
            prompt = " ".join(part for part in sample.turns[-2].parts if isinstance(part, str))
            yield Answer(sample, prompt, said.text, "".join(map(str, sample.turns[-1].parts)))


def _last_question(sample: Sample) -> Sample:
    """Of independent questions the last one alone: the others' answers would give it away."""
    return replace(sample, turns=conversations(sample)[-1], meta={})


def _shortened(model: VLM, sample: Sample) -> Sample:
    """Without the last exchanges that leave no room for an answer; the first one stays."""
    turns = sample.turns
    while len(turns) > 3:
        example = model.processor.open_example(replace(sample, turns=turns[:-1]))
        if len(example.ids) < model.llm.spec.positions:  # type: ignore[union-attr, operator]
            break
        turns = turns[:-2]
    return replace(sample, turns=turns)


def exact_match(model: VLM, slices: Sequence[Slice], prompts: Sequence[str]) -> dict[str, float]:
    """Share of answers equal to the reference, its 95 % Wilson interval, and the best constant answer's share."""
    pairs = [(answer.answer, answer.reference) for answer in ask(model, slices, prompts)]
    right = sum(said == reference for said, reference in pairs)
    low, high = wilson(right, len(pairs))
    constant = Counter(reference for _, reference in pairs).most_common(1)[0][1]
    return {
        "test/exact_match": right / len(pairs),
        "test/exact_match_low": low,
        "test/exact_match_high": high,
        "test/exact_match_n": float(len(pairs)),
        "test/constant": constant / len(pairs),
    }


def write_samples(said: Sequence[Answer], folder: Path) -> None:
    """samples.jsonl and a thumbnail a row. Raises: RunError if the folder cannot be written."""
    try:
        folder.mkdir(exist_ok=True)
        with (folder / "samples.jsonl").open("w") as file:
            for number, answer in enumerate(said):
                row = {
                    "key": answer.sample.key,
                    "image": None,
                    "answer": answer.answer,
                    "reference": answer.reference,
                    "prompt": answer.prompt,
                }
                if answer.sample.media:
                    row["image"] = f"{number:04d}.png"
                    shown = still(answer.sample.media[0], answer.sample.key)
                    thumbnail(shown, answer.sample.key).save(folder / row["image"])
                file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror or error}; free some space") from error
