"""Contrastive pretraining beside transformers' CLIPModel of the same sizes: speed, and memory of a big batch in chunks.

python -m benchmarks.contrastive

Ours is the real run (phase=contrastive with loader, Lightning and logging, on JPEG pictures with captions that it keeps
in memory); CLIP is a plain PyTorch loop over the same pictures and ids, finished and padded, that takes turns with it
in one process. Memory is what a process of its own needed at its most above what it held when everything was imported.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.captioner import prepare
from benchmarks.index import resident
from benchmarks.paired import HEADING, cpu_seconds, of_rounds
from benchmarks.real import train_beside
from vlm.contracts.batch import PADDING

BATCH, STEPS, ROUNDS = 64, 2, 5  # pairs a step; steps of a round; rounds
BIG, CHUNKS = 512, (512, 128, 32)  # pairs of a big step; pairs of a forward pass
SIDE, PATCH, VOCABULARY, TOKENS = 64, 8, 2048, 32  # pixels; entries; tokens of the longest caption
SIZES = {"width": 128, "layers": 4, "heads": 4, "mlp": 512}  # of both towers
JOINT, RATE, BETAS, EPS, DECAY = 128, 1e-3, (0.9, 0.98), 1e-6, 0.2


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(Path(folder))
        print(f"{'work':48}{HEADING}")
        clip = _clip(data)
        theirs: list[float] = []

        def turn() -> None:
            theirs.append(STEPS * BATCH / cpu_seconds(clip))

        clip()
        ours = [STEPS * BATCH / seconds for seconds in train_beside(_words(data, BATCH), 6, STEPS, ROUNDS, turn)]
        found = of_rounds(list(zip(ours, theirs, strict=True)))
        print(f"{f'real run / CLIPModel in memory, {BATCH} pairs':48}{found}")
        print(f"\n{f'{BIG} pairs a step, at once':32}{'peak MB':>10}{'CPU s a step':>14}")
        for chunk in CHUNKS:
            command = [sys.executable, "-m", "benchmarks.contrastive", str(data), str(chunk)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            megabytes, seconds = done.stdout.split()[-2:]
            print(f"{chunk:<32}{float(megabytes):10.0f}{float(seconds):14.2f}")


def _words(data: Path, batch: int) -> list[str]:
    towers = [f"{part}.{key}={value}" for part in ("encoder", "text") for key, value in SIZES.items()]
    return [
        "model=two_tower", f"model.width={JOINT}", "phase=contrastive", "text=tower_nano", "encoder=vit_nano", *towers,
        f"encoder.patch={PATCH}", f"encoder.views.size={SIDE}", f"text.tokenizer.size={VOCABULARY}",
        f"text.max_positions={TOKENS}", f"text.template.max_tokens={TOKENS}", "data=own_captions",
        "data.validate.caption_table=null", f"paths.data={data}", f"phase.global_batch={batch}", "phase.log_every=5",
        "phase.save_every=100000", "phase.schedule.name=constant", "phase.schedule.warmup=0", "logging.wandb=disabled",
        f"phase.optimizer={{betas: {list(BETAS)}, eps: {EPS}, weight_decay: {DECAY}}}", "logging.progress=false",
    ]  # fmt: skip


def _clip(data: Path) -> Callable[[], None]:
    """`STEPS` steps of transformers' model on batches that are ready."""
    from transformers import CLIPConfig, CLIPModel

    import vlm
    from vlm.data.shards import ShardSet

    shards = ShardSet(data / "caption_table" / "train")
    processor = vlm.build_model([*_words(data, BATCH), "phase.max_steps=1"]).processor
    samples = [shards[row] for row in range(len(shards))]
    processor.tokenizer.fit(str(sample.turns[-1].parts[0]) for sample in samples)
    examples = [processor.example(sample) for sample in samples]
    begins = range(0, len(examples) - BATCH + 1, BATCH)
    collated = [processor.collate(examples[begin : begin + BATCH]) for begin in begins]
    batches = [processor.finish(batch, torch.float32) for batch in collated]
    tower: dict[str, Any] = {
        "hidden_size": SIZES["width"], "num_hidden_layers": SIZES["layers"], "num_attention_heads": SIZES["heads"],
        "intermediate_size": SIZES["mlp"], "hidden_act": "gelu",
    }  # fmt: skip
    text = {**tower, "vocab_size": VOCABULARY, "max_position_embeddings": TOKENS, "bos_token_id": 1, "eos_token_id": 2}
    vision = {**tower, "image_size": SIDE, "patch_size": PATCH}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=JOINT)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True)
    taken = 0

    def work() -> None:
        nonlocal taken
        for _ in range(STEPS):
            batch = batches[taken % len(batches)]
            taken += 1
            inside = (batch.segment != PADDING).long()
            found = model(input_ids=batch.ids, attention_mask=inside, pixel_values=batch.views, return_loss=True)
            optimizer.zero_grad()
            found.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return work


def chunked(data: Path, chunk: int) -> None:
    """Prints the peak in MB and CPU seconds a step of a run whose forward passes hold `chunk` pairs."""
    torch.set_num_threads(1)
    import vlm.job  # noqa: F401 - all that a run imports, before the baseline is taken

    baseline = resident()
    seconds = train_beside([*_words(data, BIG), f"hardware.micro_batch={chunk}"], warm=1, steps=1, rounds=2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - baseline
    print(peak / 2**20, min(seconds))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        chunked(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
