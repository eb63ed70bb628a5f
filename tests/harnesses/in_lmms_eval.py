"""Run inside lmms-eval's environment: python -m tests.harnesses.in_lmms_eval MODEL FOLDER."""

from __future__ import annotations

import json
import sys
from io import BytesIO
from pathlib import Path

from tests.harnesses.conftest import COLOURS, square
from vlm.interop.harness_results import Figure, read_results

TASK = """
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {table}}}}}
task: {name}
test_split: test
doc_to_visual: !function {utils}.pope_doc_to_visual
doc_to_target: answer
lmms_eval_specific_kwargs: {{default: {{pre_prompt: "", post_prompt: "\\nAnswer."}}}}
"""
POPE = """
output_type: generate_until
doc_to_text: !function {utils}.pope_doc_to_text
generation_kwargs: {{max_new_tokens: 4, temperature: 0, top_p: 1.0, num_beams: 1, do_sample: false}}
process_results: !function {utils}.pope_process_results
metric_list: [{{metric: pope_accuracy, aggregation: !function {utils}.pope_aggregate_accuracy, higher_is_better: true}}]
"""
CHOICE = """
output_type: multiple_choice
doc_to_text: question
doc_to_choice: ["yes", "no"]
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def main(model: str, folder: Path) -> None:
    import lmms_eval.tasks.pope.utils as pope
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.loggers.evaluation_tracker import EvaluationTracker
    from lmms_eval.models import get_model
    from lmms_eval.tasks import TaskManager

    write(folder / "table.parquet")
    utils = Path(pope.__file__).with_suffix("")
    tasks = folder / "tasks"
    tasks.mkdir()
    for name, rest in (("pope", POPE.format(utils=utils)), ("choice", CHOICE)):
        head = TASK.format(table=folder / "table.parquet", name=name, utils=utils)
        (tasks / f"{name}.yaml").write_text(head + rest)
    tracker = EvaluationTracker(output_path=str(folder / "out"))
    manager = TaskManager("INFO", include_path=str(tasks), include_defaults=False, model_name="vlm")
    results = simple_evaluate(
        "vlm", model_args=f"path={model}", tasks=["pope", "choice"], device="cpu", batch_size=1,
        task_manager=manager, evaluation_tracker=tracker, log_samples=True, bootstrap_iters=0, datetime_str="20260101_000000",
    )  # fmt: skip
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples, datetime_str="20260101_000000")
    tracker.save_results_samples(task_name="pope", samples=samples["pope"])
    (written,) = (folder / "out").iterdir()
    figures = read_results(written / "20260101_000000_results.json")
    answers = read_results(written / "20260101_000000_samples_pope.jsonl")
    print(
        json.dumps(
            {
                "class": f"{get_model('vlm').__module__}.{get_model('vlm').__name__}",
                "figures": {entry.metric: entry.value for entry in figures if isinstance(entry, Figure)},
                "answers": [
                    [entry.origin.benchmark, entry.id, entry.question_id, entry.prediction, entry.reference]
                    for entry in answers
                    if not isinstance(entry, Figure)
                ],
                "choice": [row["filtered_resps"] for row in samples["choice"]],
            },
            default=str,
        )
    )


def write(path: Path) -> None:
    from datasets import Dataset, Features, Image, Value

    def encoded(colour: str) -> bytes:
        file = BytesIO()
        square(colour).save(file, "PNG")
        return file.getvalue()

    rows = {
        "question_id": [str(10 + number) for number in range(len(COLOURS))],
        "question": [f"Is it {colour}?" for colour in COLOURS],
        "answer": ["yes", "no"] * 2,
        "image": [{"bytes": encoded(colour), "path": None} for colour in COLOURS],
    }
    texts = {name: Value("string") for name in ("question_id", "question", "answer")}
    Dataset.from_dict(rows, features=Features({**texts, "image": Image()})).to_parquet(str(path))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
