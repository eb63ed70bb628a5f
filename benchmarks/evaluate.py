"""Answers to a benchmark beside a loop that asks one question after another: questions per CPU second.

python -m benchmarks.evaluate [questions=600]

POPE's profile: six questions about each picture, a JPEG of 640 x 480, read from files in POPE's form. Ours is the evaluation
itself, from reading these files to answers that are safe on the disk; the loop is what a user would write, `vlm.generate`
for each question with the same settings. Weights are random, and every answer has the same number of tokens. Where answers
are compared by their probability, the loop opens a picture once a question and judges each answer by a pass of its own.
The loop does a share of the questions, and its answers must be ours.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import ByteLevel
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

import vlm
from benchmarks.images import picture
from benchmarks.paired import HEADING, Paired, paired
from tests.hf_folder import CHATML, write_tokenizer
from vlm.benchmarks import prepared_benchmark
from vlm.contracts.benchmark import Question
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Turn
from vlm.data.pictures import decode
from vlm.evaluation import answering
from vlm.evaluation.answering import Answering
from vlm.evaluation.prepared import Prepared
from vlm.evaluation.runner import Asking, Task
from vlm.models.generation import answers
from vlm.models.likelihood import log_probabilities
from vlm.models.vlm import VLM

A_PICTURE, SIZE = 6, (640, 480)  # questions about it; its pixels
TOKENS, BATCH = 4, 64  # of every answer; rows decoded together, as is the command's default
ALONE, ROUNDS = 36, 3  # questions of the loop; rounds
THINGS = ("person", "car", "bus", "bird", "cat", "dog", "horse", "tie", "kite", "cup", "knife", "bowl", "cake", "chair")
NANO = ["experiment=supravl_nano", "llm.template.prompt=true", "llm.max_positions=128"]
LLAMA = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 8,
         "num_key_value_heads": 4, "max_position_embeddings": 512}  # fmt: skip


def main(count: int) -> None:
    torch.set_num_threads(1)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = write_benchmark(folder, count)
        print(f"{count} questions, {A_PICTURE} a picture of {SIZE[0]} x {SIZE[1]}, answers of {TOKENS} tokens")
        print(f"{'work':48}{HEADING}")
        for label, model in _models(folder, texts):
            for work, found in _works(folder, model):
                print(f"{f'{label}, {work}':48}{found}")


def write_benchmark(folder: Path, count: int) -> list[str]:
    """POPE's files twice: in `shared` a picture has its questions, in `apart` each has a copy. Returns: the texts."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        thing = THINGS[int(generator.integers(len(THINGS)))]
        text, label = f"Is there a {thing} in the image?", ("yes", "no")[number % 2]
        rows.append({"question_id": number, "image": f"{number // A_PICTURE}.jpg", "text": text, "label": label})
    for name in ("shared", "apart"):
        (folder / name / "val2014").mkdir(parents=True)
    for number, lines in itertools.groupby(rows, key=lambda row: row["image"]):
        place = folder / "shared" / "val2014" / number
        picture(generator).resize(SIZE).save(place, "JPEG", quality=90)
        for line in lines:
            (folder / "apart" / "val2014" / f"{line['question_id']}.jpg").write_bytes(place.read_bytes())
    apart = [{**row, "image": f"{row['question_id']}.jpg"} for row in rows]
    for name, table in (("shared", rows), ("apart", apart)):
        (folder / name / "coco_pope_random.json").write_text("".join(json.dumps(row) + "\n" for row in table))
    return [f"{row['text']}\nAnswer the question using a single word or phrase. {row['label']}" for row in rows]


def _models(folder: Path, texts: list[str]) -> Iterator[tuple[str, VLM]]:
    for label, words in (("CNN + GPT-2", NANO), ("ViT + GPT-2", [*NANO, "encoder=vit_nano"])):
        model = vlm.build_model(words)
        model.processor.tokenizer.fit(texts)
        yield label, model
    write_llama(folder / "llama", texts)
    views = ["encoder=vit_nano", "encoder.patch=14", "connector=linear"]  # 8 x 8 visual tokens
    language = ["llm=hf_causal", f"llm.path={folder / 'llama'}", "llm.template.max_tokens=128"]
    yield "ViT + Llama", vlm.build_model([*views, *language, "phase.max_steps=1"])


def write_llama(folder: Path, texts: list[str]) -> None:
    """Random weights in Hugging Face's form."""
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    engine.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    engine.post_processor = ByteLevel(trim_offsets=True)  # type: ignore[assignment]
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    engine.train_from_iterator(texts, trainer)
    write_tokenizer(folder, CHATML, engine)
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=512, bos_token_id=0, eos_token_id=3, **LLAMA)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def _works(folder: Path, model: VLM) -> Iterator[tuple[str, Paired]]:
    for name, decoding, work in (
        ("shared", "greedy", "pictures shared"),
        ("apart", "greedy", "a picture each"),
        ("shared", "likelihood", "yes or no judged"),
    ):
        change = {"reader": {"folder": name, "kinds": ["random"], "expected": None}, "controls": []}
        prepared = prepared_benchmark("pope", {**change, "decoding": decoding, "max_new_tokens": TOKENS}, str(folder))
        runs = folder / f"{id(model)}-{name}-{decoding}"
        count = len(list(prepared.reader.questions()))
        said: dict[str, str] = {}
        alone: dict[str, str] = {}
        found = paired(_ours(prepared, model, runs, said), _loop(prepared, model, alone), count, ROUNDS, ALONE)
        if different := [name for name in alone if said[name] != alone[name]]:
            raise SystemExit(f"{work}: {len(different)} of {len(alone)} answers differ, first {different[0]}")
        yield work, found


def _ours(prepared: Prepared, model: VLM, runs: Path, said: dict[str, str]) -> Callable[[], None]:
    numbers = itertools.count()

    def work() -> None:
        asking = Asking("random", "random", runs, limit=None, seed=0, shifts=0, token_budget=None)
        task = Task(prepared, asking, runs / str(next(numbers)))
        with patch.object(answering, "answers", partial(answers, min_new_tokens=TOKENS)):
            task.answer(Answering(model, BATCH))
        said.update({name: reply.prediction for name, reply in task.sheet.replies("seen").items()})

    return work


def _loop(prepared: Prepared, model: VLM, said: dict[str, str]) -> Callable[[], None]:
    ask = _spoken if prepared.settings.decoding == "greedy" else _judged

    def work() -> None:
        for question in itertools.islice(prepared.reader.questions(), ALONE):
            said[question.id] = ask(model, question, prepared)

    return work


def _spoken(model: VLM, question: Question, prepared: Prepared) -> str:
    pictures = [Path(prepared.reader.folder) / one.id for one in question.pictures]
    text = prepared.settings.prompt.format(question=question.text)
    return vlm.generate(model, text, pictures, min_new_tokens=TOKENS, max_new_tokens=TOKENS)


def _judged(model: VLM, question: Question, prepared: Prepared) -> str:
    processor: Any = model.processor
    views = [
        processor.finished(processor.views(decode(one.read(), one.id, least=processor.views.least)))
        for one in question.pictures
    ]
    user = Turn("user", (*range(len(views)), prepared.settings.prompt.format(question=question.text)))
    values = {}
    for answer in ("yes", "no"):
        example = processor.alternatives([(user, Turn("assistant", (answer,)))], views, range(len(views)))
        values[answer] = log_probabilities(model, [example], [1])[0][0][0]
    return max(values, key=values.__getitem__)


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    if alien := sorted(set(given) - {"questions"}):
        raise InputError(f"{', '.join(alien)} is unknown; give questions=N")
    main(int(given.get("questions", 600)))
