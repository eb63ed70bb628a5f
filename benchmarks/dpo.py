"""Preference training beside TRL's trainer and beside rows apart: pairs per CPU second, memory, first loss.

python -m benchmarks.dpo

Ours is the real run (llm=hf_causal from a local folder, prepared pairs, phase=dpo with a new adapter): both answers are
branches of one prompt. "Rows apart" is the same run with the prompt written out before each answer. TRL gets the same ids
in the same order, the same weights, a LoRA of the same form and the same optimizer; it scores answer positions only, and
runs once without recomputation, as ours, and once with it, as is its default. Each side is a process of its own with one
thread, and they take turns step by step. Memory is what a process needed at its most above what it held when everything
was imported.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import sft
from benchmarks.turns import Side, in_turn, own_output

BATCH, ROUNDS = 8, 4  # pairs a step; measured steps
PROMPT, ANSWER = 300, 60  # tokens
VOCABULARY, WORDS = sft.VOCABULARY, sft.WORDS
RATE, BETA, RANK, ALPHA, TARGETS = 1e-4, 0.1, 16, 32, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]  # fmt: skip
SIDES = {
    "ours": "ours, branches",
    "apart": "ours, rows apart",
    "trl": "TRL",
    "trl_recompute": "TRL, recomputing",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prompts, answers = prepare(folder)
        print(
            f"{ROUNDS} steps of {BATCH} pairs, {prompts:.0f} + {answers:.0f} tokens on average; Llama of width "
            f"{sft.MODEL['hidden_size']}, {sft.MODEL['num_hidden_layers']} layers, vocabulary {VOCABULARY}, float32, LoRA r={RANK}"
        )
        found = in_turn("benchmarks.dpo", SIDES, ROUNDS, folder)
    speeds = {side: BATCH / np.array(result["seconds"]) for side, result in found.items()}
    print(
        f"{'side':20}{'pairs / cpu s':>14}{'peak MB':>9}{'first loss':>12}{'ours is':>9}{'memory':>8}   "
        "(range of the speeds' ratio)"
    )
    for side, label in SIDES.items():
        ratios = sorted(speeds["ours"] / speeds[side])
        print(
            f"{label:20}{statistics.median(speeds[side]):14.2f}{found[side]['mb']:9.0f}{found[side]['loss']:12.6f}"
            f"{statistics.median(ratios):8.2f}x{found['ours']['mb'] / found[side]['mb']:7.2f}x"
            f"   ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def prepare(folder: Path) -> tuple[float, float]:
    """A model folder, prepared pairs, and their ids for TRL. Returns: mean tokens of a prompt and of an answer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    import vlm
    from tests.hf_folder import CHATML, write_tokenizer
    from vlm.data.shards import ShardSet

    generator = np.random.default_rng(0)
    words = ["".join(generator.choice(list("abcdefghijklmnoprstuvw"), 5)) for _ in range(WORDS)]
    engine = sft.tokenizer(words)
    tokens_a_word = len(engine.encode(" ".join(words)).ids) / len(words)
    write_tokenizer(folder / "model", CHATML, engine)
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=3, **sft.MODEL)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")

    def said(tokens: float) -> str:
        return " ".join(generator.choice(words, round(tokens / tokens_a_word)))

    source = folder / "published"
    source.mkdir()
    with (source / "pairs.jsonl").open("w") as file:
        for _ in range(3 * BATCH * (ROUNDS + 1)):
            prompt = PROMPT * generator.uniform(0.9, 1.1)
            chosen, rejected = (said(ANSWER * generator.uniform(0.8, 1.2)) for _ in range(2))
            file.write(json.dumps({"prompt": said(prompt), "chosen": chosen, "rejected": rejected}) + "\n")
    command = [sys.executable, "-m", "data_prep.prepare", "source=preference_jsonl", f"from={source}"]
    subprocess.run([*command, f"out={folder / 'data'}"], check=True, stdout=sys.stderr)
    processor = vlm.build_model([*_words(folder), "phase.max_steps=1"]).processor
    shards = ShardSet(folder / "data" / "preference_jsonl" / "train")
    rows = [_ids(processor.example(shards[row], pair=True)) for row in range(BATCH * (ROUNDS + 1))]
    (folder / "rows.json").write_text(json.dumps(rows))
    lengths = {name: np.mean([len(row[name]) for row in rows]) for name in rows[0]}
    return float(lengths["prompt_ids"]), float(lengths["chosen_ids"] + lengths["rejected_ids"]) / 2


def _ids(example: Any) -> dict[str, list[int]]:
    """As TRL's collator wants them."""
    prefix, chosen, rejected = (example.ids[example.segment == segment].tolist() for segment in range(3))
    return {"prompt_ids": [*prefix, chosen[0]], "chosen_ids": chosen[1:], "rejected_ids": rejected[1:]}


def _words(folder: Path) -> list[str]:
    lora = f"{{rank: {RANK}, alpha: {ALPHA}, dropout: 0.0, targets: [{', '.join(TARGETS)}]}}"
    return [
        "encoder=none", "connector=none", "llm=hf_causal", f"llm.path={folder / 'model'}", "llm.template.max_tokens=2048",
        "adapter=dpo_r16", f"llm.adapters.dpo={lora}", "phase=dpo", "data=own_preferences",
        "data.validate.preference_jsonl=null", "data.shuffle=false", f"paths.data={folder / 'data'}",
        f"phase.global_batch={BATCH}", "phase.log_every=1", "phase.samples=0", f"phase.trainable.adapter.dpo={RATE}",
        "phase.guards.chosen_drift=null", f"phase.loss.beta={BETA}", "phase.schedule={name: constant, warmup: 0.0}",
        "phase.save_every=1000", f"phase.optimizer={{betas: {list(sft.BETAS)}, weight_decay: {sft.DECAY}}}",
    ]  # fmt: skip


def ours(folder: Path, out: Any, apart: bool) -> None:
    # All that a run imports, before the baseline is taken.
    import peft  # noqa: F401
    import torch

    import vlm.job
    import vlm.models.llms.hf_causal
    import vlm.phases.dpo  # noqa: F401
    from benchmarks.real import train_beside
    from vlm.data.branches import side_by_side
    from vlm.phases.base import Phase

    torch.set_num_threads(1)
    side = Side(out)
    losses: list[float] = []
    take = Phase.take_metrics

    def noted(phase: Phase) -> dict[str, float]:
        row = take(phase)
        losses.append(row["train/loss"])
        return row

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(Phase, "take_metrics", noted))
        if apart:
            stack.enter_context(mock.patch("vlm.data.processor.join", side_by_side))
        train_beside(_words(folder), warm=0, steps=1, rounds=ROUNDS + 1, between=side.step_done)
    side.finish(losses[0])


def trl(folder: Path, out: Any, recompute: bool) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    torch.set_num_threads(1)
    side = Side(out)

    class Turns(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            side.step_done()

    class Prepared(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset  # it holds ids

    config = DPOConfig(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, report_to=[], save_strategy="no", disable_tqdm=True,
        per_device_train_batch_size=BATCH, max_steps=ROUNDS + 1, max_length=None, gradient_checkpointing=recompute,
        train_sampling_strategy="sequential", logging_steps=1, beta=BETA, optim="adamw_torch_fused", learning_rate=RATE,
        lr_scheduler_type="constant", adam_beta1=sft.BETAS[0], adam_beta2=sft.BETAS[1], weight_decay=sft.DECAY,
        max_grad_norm=sft.CLIP,
    )  # fmt: skip
    trainer = Prepared(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_list(json.loads((folder / "rows.json").read_text())),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        peft_config=LoraConfig(
            r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM"
        ),
        callbacks=[Turns()],
    )
    trainer.train()
    side.finish(trainer.state.log_history[0]["loss"])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with own_output() as out:
            work: dict[str, Callable[[], None]] = {
                "ours": lambda: ours(Path(sys.argv[2]), out, apart=False),
                "apart": lambda: ours(Path(sys.argv[2]), out, apart=True),
                "trl": lambda: trl(Path(sys.argv[2]), out, recompute=False),
                "trl_recompute": lambda: trl(Path(sys.argv[2]), out, recompute=True),
            }
            work[sys.argv[1]]()
    else:
        main()
