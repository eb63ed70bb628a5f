from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from vlm.reporting.runs import Run, read_run

LLM = "vlm.models.llms.tiny_gpt.TinyGPT"


class Folders:
    """Writes run folders below `root` as a training run leaves them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, name: str = "purevlm", identity: str = "0123456789ab", **changes: Any) -> Path:
        """A finished run; changes: config (merged over the default), status (merged), rows, samples, data, command."""
        folder = self.root / name / identity
        folder.mkdir(parents=True)
        config = {"name": name, "seed": 0, "llm": {"_target_": LLM, "attention": "tensor"}, "paths": {"runs": "runs"}}
        status = {
            "state": "finished",
            "step": 100,
            "max_steps": 100,
            "best": {"metric": "val/loss", "value": 0.5, "step": 100},
            "metrics": {"val/loss": 0.5, "val/vision_gain": 0.8, "val/vision_gain_se": 0.05},
            "warnings": [],
            "error": None,
            "seconds": 90.0,
            "overrides": [],
            "started": "2026-01-02T03:04:05",
        }
        rows = [{"step": step, "samples": 64 * step, "train/loss": 3 / step} for step in (10, 50, 100)]
        self.write(folder / "config.yaml", yaml.safe_dump({**config, **changes.get("config", {})}))
        self.write(folder / "status.json", json.dumps({**status, **changes.get("status", {})}))
        self.write(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in changes.get("rows", rows)))
        self.write(
            folder / "command.txt", changes.get("command", f"python -m experiments.train experiment={name}") + "\n"
        )
        self.write(folder / "versions.json", json.dumps({"python": "3.11.7", "packages": {"numpy": "2.4.6"}}))
        self.write(folder / "data.json", json.dumps(changes.get("data", _data("mnist", "CC-BY-SA-3.0"))))
        if "samples" in changes:
            self.samples(folder / "samples", changes["samples"])
        return folder

    def samples(self, folder: Path, samples: list[tuple[str, str]]) -> None:
        """samples: (answer, reference), each with a grey picture of 28 pixels a side."""
        folder.mkdir()
        lines = []
        for number, (answer, reference) in enumerate(samples):
            image = f"{number:04}.png"
            Image.new("L", (28, 28), 40 * number).save(folder / image)
            row = {"key": f"k{number}", "image": image, "answer": answer, "reference": reference, "prompt": ""}
            lines.append(json.dumps(row) + "\n")
        self.write(folder / "samples.jsonl", "".join(lines))

    def read(self, *args: Any, **changes: Any) -> Run:
        return read_run(self.run(*args, **changes), self.root)

    @staticmethod
    def write(path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")


def _data(name: str, license: str) -> dict[str, Any]:
    read = {"dir": f"data/{name}/train", "rows": 59000, "manifest_sha256": "ab" * 32, "license": license}
    return {"sets": {"train": {name: read}}, "asked": {name: 1.0}}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "runs")
