"""SupraVL-Nano beside plain PyTorch, in one run, in turn: the real training run, its bare step, and beam search.

python -m benchmarks.captioner

The real run is experiment=supravl_nano with loader, Lightning, logging and checkpoints, on JPEG pictures with captions.
Plain is a loop over a DataLoader: once over the same bytes, decoded and resized by Pillow at every visit, and once over
finished tensors that all lie in memory. Plain beam search runs the whole row again for every token of every beam.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

import vlm
from benchmarks.images import picture
from benchmarks.paired import HEADING, Paired, cpu_seconds, of_rounds, paired
from benchmarks.plain import (
    TEXT,
    VISUAL,
    VOCABULARY,
    PlainCaptioner,
    PlainPictures,
    plain_beam,
    plain_collate,
    plain_step,
)
from benchmarks.real import train_beside
from vlm.contracts.batch import IGNORE, Batch
from vlm.contracts.batch import VISUAL as PLACE
from vlm.data.shards import ShardSet
from vlm.losses.language import language_loss
from vlm.models.generation import answers

BATCH, CAPTION = 64, 12  # rows; words of a caption row
PICTURES, SCENES = 160, 40  # captions; pictures that are drawn, each saved several times at another quality
STEPS, ROUNDS = 4, 5  # steps of a round; rounds
BEAMED, LONGEST = 32, 47  # pictures that are described together; new tokens


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'work':48}{HEADING}")
    with tempfile.TemporaryDirectory() as folder:
        for name, found in _real_runs(prepare(Path(folder))):
            print(f"{name:48}{found}")
    ours, plain = vlm.build_model(["experiment=supravl_nano"]).train(), PlainCaptioner()
    for text in (TEXT, CAPTION):
        found = paired(_step_ours(ours, text), _step_plain(plain, text), BATCH * STEPS, ROUNDS)
        print(f"{f'bare step, batch {BATCH}, rows of {text}':48}{found}")
    for count, name in ((BEAMED, f"{BEAMED} pictures together"), (1, "one picture")):
        found = paired(_beam_ours(ours, count), _beam_plain(plain), count, ROUNDS, others_items=1)
        print(f"{f'beam 3, {LONGEST} tokens, {name}':48}{found}")


def prepare(folder: Path) -> Path:
    """Returns: the root of a prepared set of captions, the longest of CAPTION words."""
    source = folder / "published"
    source.mkdir()
    generator = np.random.default_rng(0)
    words = ["".join(generator.choice(list("abcdefgh"), 4)) for _ in range(300)]
    lines, scenes = [], [picture(generator) for _ in range(SCENES)]
    for number in range(PICTURES):
        scenes[number % SCENES].save(source / f"{number}.jpg", "JPEG", quality=90 - number // SCENES)
        said = " ".join(generator.choice(words, generator.integers(6, CAPTION + 1)))
        lines.append(f"{number}.jpg\t{said}\n")
    (source / "captions.tsv").write_text("".join(lines))
    command = [sys.executable, "-m", "data_prep.prepare", "source=caption_table", f"from={source}", f"out={folder}"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return folder


def _real_runs(data: Path) -> Iterator[tuple[str, Paired]]:
    shards = ShardSet(data / "caption_table" / "train")
    words = ["experiment=supravl_nano", "data=own_captions", f"paths.data={data}", "phase.log_every=5"]
    tokenizer = vlm.build_model(words).processor.tokenizer
    samples = [shards[row] for row in range(len(shards))]
    said = [str(sample.turns[-1].parts[0]) for sample in samples]
    tokenizer.fit(said)
    begin, end = tokenizer.special("<bos>"), tokenizer.special("<eos>")
    rows = PlainPictures(
        [sample.media[0].data for sample in samples],
        [torch.tensor([begin, *tokenizer.encode(text), end]) for text in said],
    )
    decoding, ready = _plain_loop(rows), _plain_loop([rows[row] for row in range(len(rows))])
    decoding()
    ready()
    warm = -(-2 * len(shards) // BATCH)  # two passes
    against: dict[str, list[float]] = {"decoding": [], "in memory": []}

    def turns() -> None:
        against["decoding"].append(STEPS * BATCH / cpu_seconds(decoding))
        against["in memory"].append(STEPS * BATCH / cpu_seconds(ready))

    def run(*more: str) -> list[float]:
        for found in against.values():
            found.clear()
        return [STEPS * BATCH / seconds for seconds in train_beside([*words, *more], warm, STEPS, ROUNDS, turns)]

    ours = run()
    for name in against:
        yield f"real run, rows kept / plain, {name}", of_rounds(list(zip(ours, against[name], strict=True)))
    ours = run("data.cache_gb=0")
    yield "real run, decoding / plain, decoding", of_rounds(list(zip(ours, against["decoding"], strict=True)))


def _plain_loop(rows: Any) -> Callable[[], None]:
    loader = DataLoader(rows, batch_size=BATCH, shuffle=True, drop_last=True, collate_fn=plain_collate)
    model = PlainCaptioner().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95))

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    batches = endless()

    def work() -> None:
        for _ in range(STEPS):
            plain_step(model, optimizer, *next(batches))

    return work


def _data(text: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, 3, 112, 112, generator=generator), torch.randint(
        3, VOCABULARY, (BATCH, text), generator=generator
    )


def _step_ours(model: torch.nn.Module, text: int) -> Callable[[], None]:
    images, ids = _data(text)
    rows = torch.cat([torch.full((BATCH, VISUAL), PLACE), ids], dim=1)
    labels = torch.where(torch.arange(rows.shape[1]) > VISUAL, rows, IGNORE)
    batch = Batch(
        ids=rows,
        labels=labels,
        positions=torch.arange(rows.shape[1]).expand_as(rows),
        segment=torch.arange(BATCH).unsqueeze(1).expand_as(rows),
        parent=torch.full((BATCH,), -1),
        sample=torch.arange(BATCH),
        views=images,
        slots=torch.arange(BATCH).unsqueeze(1).expand(BATCH, 2),
        pictures=torch.arange(BATCH),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), fused=True)

    def work() -> None:
        model.train()
        for _ in range(STEPS):
            loss = language_loss(model(batch).logp, batch)
            optimizer.zero_grad()
            (loss.total / loss.count).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return work


def _step_plain(model: PlainCaptioner, text: int) -> Callable[[], None]:
    images, ids = _data(text)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95))

    def work() -> None:
        model.train()
        for _ in range(STEPS):
            plain_step(model, optimizer, images, ids)

    return work


def _beam_ours(model: Any, count: int) -> Callable[[], None]:
    model.processor.tokenizer.fit(["a", "b"])
    images = _data(1)[0][:count]

    def work() -> None:
        asked = [model.processor.question("", [image]) for image in images]
        answers(model, asked, "beam", min_new_tokens=LONGEST, max_new_tokens=LONGEST)

    return work


def _beam_plain(model: PlainCaptioner) -> Callable[[], None]:
    image = _data(1)[0][:1]

    def work() -> None:
        model.eval()
        plain_beam(model, image, begin=1, end=-1, width=3, longest=LONGEST)

    return work


if __name__ == "__main__":
    main()
