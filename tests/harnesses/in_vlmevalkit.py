"""Run inside VLMEvalKit's environment: python -m tests.harnesses.in_vlmevalkit MODEL FOLDER."""

from __future__ import annotations

import base64
import json
import os
import sys
from functools import partial
from io import BytesIO
from pathlib import Path

import torch

from tests.harnesses.conftest import COLOURS, square
from vlm.interop.harness_results import Figure, Prediction, read_results

if torch.version.cuda is None:  # the registry's torchvision is built for CUDA and names operators that it cannot load
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")


def main(model: str, folder: Path) -> None:
    os.environ["LMUData"] = str(folder / "data")  # noqa: SIM112 (its own name)
    (folder / "data").mkdir()
    from vlmeval.config import supported_VLM
    from vlmeval.dataset import ImageMCQDataset, ImageYORNDataset
    from vlmeval.inference import infer_data_job

    from vlm.harnesses.vlmevalkit import SavedModel

    instructions = {"MCQ": "\nAnswer with a letter."}
    supported_VLM["mine"] = partial(
        SavedModel, model_path=model, device="cpu", instructions=instructions, max_new_tokens=4
    )
    found: dict[str, object] = {}
    figures = []
    for kind, name, ending in ((ImageYORNDataset, "POPE", "score"), (ImageMCQDataset, "AI2D_TEST", "acc")):
        kind.DATASET_MD5 = {}  # the few rows written here instead of the published table
        write(folder / "data" / f"{name}.tsv", name)
        data = kind(name)
        infer_data_job("mine", work_dir=str(folder), model_name="mine", dataset=data)
        scores = data.evaluate(str(folder / f"mine_{name}.xlsx"), model="exact_matching")
        found[name] = [shown(entry) for entry in read_results(folder / f"mine_{name}.xlsx")]
        figures += [shown(entry) for entry in read_results(folder / f"mine_{name}_{ending}.csv")]
        if name == "POPE":
            found["accuracy"] = float(scores["acc"][0])
    print(json.dumps({**found, "figures": figures}))


def write(path: Path, name: str) -> None:
    import pandas

    rows = []
    for number, colour in enumerate(COLOURS):
        file = BytesIO()
        square(colour).save(file, "PNG")
        row = {"index": number, "image": base64.b64encode(file.getvalue()).decode(), "image_path": f"{number}.png"}
        if name == "POPE":
            row |= {"question": f"Is it {colour}?", "answer": ["Yes", "No"][number % 2], "category": "random"}
        else:
            row |= {"question": "Which is it?", "A": colour, "B": "white", "answer": "A", "category": "colour"}
        rows.append(row)
    pandas.DataFrame(rows).to_csv(path, sep="\t", index=False)


def shown(entry: Prediction | Figure) -> dict[str, object]:
    if isinstance(entry, Figure):
        return {
            "benchmark": entry.origin.benchmark,
            "split": entry.split,
            "metric": entry.metric,
            "value": entry.value,
        }
    return {
        "benchmark": entry.origin.benchmark,
        "id": entry.id,
        "prediction": entry.prediction,
        "model": entry.origin.model,
        "reference": entry.reference,
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
