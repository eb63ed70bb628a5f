"""Supervised fine-tuning on conversations of ragged lengths beside TRL's padded trainer: speed, memory, first loss.

python -m benchmarks.sft

Ours is the real run (llm=hf_causal from a local folder, prepared shards, hardware.pack=true); TRL gets the same ids in
the same order, the same weights and the same optimizer, once without recomputation, as ours, and once with it, as is its
default. Each side is a process of its own with one thread, and they take turns step by step. Memory is what a process
needed at its most above what it held when everything was imported.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turns import Side, in_turn, own_output

BATCH, ROUNDS = 8, 4  # rows a step; measured steps
VOCABULARY, WORDS = 8192, 4000  # of the model; invented words that its tokenizer learns
MODEL = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 8,
         "num_key_value_heads": 4, "max_position_embeddings": 2048}  # fmt: skip
RATE, BETAS, DECAY, CLIP = 1e-4, (0.9, 0.95), 0.01, 1.0
SIDES = {"ours": "ours, packed", "trl": "TRL, padded", "trl_recompute": "TRL, padded, recomputing"}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lengths = prepare(folder)
        padding = 1 - lengths.sum() / (lengths.max(1) * BATCH).sum()
        print(
            f"{ROUNDS} steps of {BATCH} rows, {lengths.mean():.0f} tokens on average, {padding:.0%} padding if padded; "
            f"Llama of width {MODEL['hidden_size']}, {MODEL['num_hidden_layers']} layers, vocabulary {VOCABULARY}, float32"
        )
        found = in_turn("benchmarks.sft", SIDES, ROUNDS, folder)
    real = lengths.sum(1)[1 : ROUNDS + 1]
    speeds = {side: real / np.array(result["seconds"]) for side, result in found.items()}
    users = {side: real / np.array(result["user"]) for side, result in found.items()}
    print(
        f"{'side':26}{'tokens / cpu s':>15}{'peak MB':>9}{'first loss':>12}{'ours is':>9}{'memory':>8}"
        f"{'user time only':>16}   (range of the speeds' ratio)"
    )
    for side, label in SIDES.items():
        ratios = sorted(speeds["ours"] / speeds[side])
        print(
            f"{label:26}{statistics.median(speeds[side]):15.0f}{found[side]['mb']:9.0f}{found[side]['loss']:12.6f}"
            f"{statistics.median(ratios):8.2f}x{found['ours']['mb'] / found[side]['mb']:7.2f}x"
            f"{statistics.median(users['ours'] / users[side]):15.2f}x   ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def prepare(folder: Path) -> np.ndarray:
    """A model folder, prepared conversations, and their ids for TRL. Returns: tokens of each row [step, row]."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    import vlm
    from tests.hf_folder import CHATML
    from vlm.data.shards import ShardSet

    generator = np.random.default_rng(0)
    words = ["".join(generator.choice(list("abcdefghijklmnoprstuvw"), 5)) for _ in range(WORDS)]
    engine = tokenizer(words)
    tokens_a_word = len(engine.encode(" ".join(words)).ids) / len(words)
    write_tokenizer(folder / "model", CHATML, engine)
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=3, **MODEL)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")

    rows = BATCH * (ROUNDS + 1)
    source = folder / "published"
    source.mkdir()
    with (source / "chats.jsonl").open("w") as file:
        for length in generator.gamma(7.0, 293 / 7.0, 2 * rows).clip(24, 1000):
            said = " ".join(generator.choice(words, round((length - 8) / tokens_a_word)))
            question, answer = said[: len(said) // 4], said[len(said) // 4 :]
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": messages}) + "\n")
    command = [
        sys.executable,
        "-m",
        "data_prep.prepare",
        "source=chat_jsonl",
        f"from={source}",
        f"out={folder / 'data'}",
    ]
    subprocess.run(command, check=True, stdout=sys.stderr)
    processor = vlm.build_model([*_words(folder), "phase.max_steps=1"]).processor
    shards = ShardSet(folder / "data" / "chat_jsonl" / "train")
    examples = [processor.example(shards[row], all_text=True) for row in range(rows)]
    data = [{"input_ids": example.ids.tolist(), "labels": example.labels.tolist()} for example in examples]
    (folder / "rows.json").write_text(json.dumps(data))
    return np.array([len(example.ids) for example in examples]).reshape(-1, BATCH)


def tokenizer(words: list[str]) -> Any:
    """Byte-level, with every word as one token behind a space."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    engine.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    special = [AddedToken(name, special=True) for name in ("<s>", "</s>", "<|im_start|>", "<|im_end|>")]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator([" ".join(["user assistant", *words])], trainer)
    return engine


def _words(folder: Path) -> list[str]:
    return [
        "encoder=none", "connector=none", "llm=hf_causal", f"llm.path={folder / 'model'}", "llm.template.max_tokens=2048",
        "data=own_chats", "data.validate.chat_jsonl=null", "data.shuffle=false", f"paths.data={folder / 'data'}",
        "hardware.pack=true", "phase.targets=all", f"phase.global_batch={BATCH}", "phase.log_every=1", "phase.samples=0",
        f"phase.trainable={{llm: {RATE}}}", "phase.schedule.name=constant", "phase.save_every=1000",
        f"phase.optimizer={{name: adamw, betas: {list(BETAS)}, weight_decay: {DECAY}, clip_norm: {CLIP}}}",
    ]  # fmt: skip


def ours(folder: Path, out: Any) -> None:
    import torch

    import vlm.job  # noqa: F401 - all that a run imports, before the baseline is taken
    from benchmarks.real import train_beside
    from vlm.phases.base import Phase

    torch.set_num_threads(1)
    side = Side(out)
    losses: list[float] = []
    take = Phase.take_metrics

    def noted(phase: Phase) -> dict[str, float]:
        row = take(phase)
        losses.append(row["train/loss"])
        return row

    Phase.take_metrics = noted  # type: ignore[method-assign]
    train_beside(_words(folder), warm=0, steps=1, rounds=ROUNDS + 1, between=side.step_done)
    side.finish(losses[0])


def trl(folder: Path, out: Any, recompute: bool) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(1)
    side = Side(out)

    class Turns(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            side.step_done()

    config = SFTConfig(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, report_to=[], save_strategy="no", disable_tqdm=True,
        per_device_train_batch_size=BATCH, max_steps=ROUNDS + 1, max_length=None, packing=False,
        gradient_checkpointing=recompute, train_sampling_strategy="sequential", logging_steps=1,
        optim="adamw_torch_fused", learning_rate=RATE, lr_scheduler_type="constant", adam_beta1=BETAS[0],
        adam_beta2=BETAS[1], weight_decay=DECAY, max_grad_norm=CLIP, dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_list(json.loads((folder / "rows.json").read_text())),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        callbacks=[Turns()],
    )
    trainer.train()
    side.finish(trainer.state.log_history[0]["loss"])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with own_output() as out:
            work: dict[str, Callable[[], None]] = {
                "ours": lambda: ours(Path(sys.argv[2]), out),
                "trl": lambda: trl(Path(sys.argv[2]), out, recompute=False),
                "trl_recompute": lambda: trl(Path(sys.argv[2]), out, recompute=True),
            }
            work[sys.argv[1]]()
    else:
        main()
