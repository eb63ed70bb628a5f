"""Evaluation folders as a run leaves them, for tests of the page and of the tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

LETTERS = {
    "predicted": {"A": 0.52, "B": 0.26, "C": 0.14, "D": 0.08},
    "gold": {"A": 0.31, "B": 0.29, "C": 0.24, "D": 0.16},
    "chi2_p": 1.2e-9,
    "per_letter": {
        letter: {"n": 100, "accuracy": score} for letter, score in zip("ABCD", (0.7, 0.4, 0.3, 0.2), strict=True)
    },
    "spread": 0.19,
    "by_options": {"2": {"n": 120, "accuracy": 0.55}, "4": {"n": 80, "accuracy": 0.31}},
    "shifts": {"0": 0.48, "1": 0.35, "2": 0.33},
    "all_shifts": 0.21,
    "unlettered": None,
    "flags": ["the letter A is answered 1.7 times as often as it is right"],
}  # fmt: skip
YES_NO = {"yes_ratio": 0.973, "gold_yes": 0.5, "on_yes": 0.98, "on_no": 0.034}


def entry(benchmark: str = "pope", **changes: Any) -> dict[str, Any]:
    """An entry of results.json; settings and details are merged over the usual ones."""
    settings = {
        "id": "5e77", "model": "runs/captioner/0123456789ab", "weights": "ab" * 32, "decoding": "greedy",
        "max_new_tokens": 16, "limit": None, "seed": 0, "ocr": "none", "token_budget": None,
        "prompt": "{question}\nAnswer the question using a single word or phrase.",
        "data": {"questions.json": "cd" * 32},
    }  # fmt: skip
    details = {"measures": {}, "unparsable_n": 27, "pictures": None, "bias": None, "warnings": [], "trained_on": None}
    whole = {
        "benchmark": benchmark, "variant": "vlmevalkit", "headline": True, "split": "all", "n": 9000, "groups": 500,
        "score": 0.612, "metric": "accuracy", "top": 1.0, "interval": [0.598, 0.626], "unparsable": 0.003,
        "truncated": 0.0004,
        "baselines": {
            "always_yes": {"score": 0.5, "difference": 0.112, "interval": [0.098, 0.126]},
            "always_no": {"score": 0.5, "difference": 0.112, "interval": [0.097, 0.127]},
            "empty": {"score": 0.0, "difference": 0.612, "interval": [0.598, 0.626]},
            "blank": {"score": 0.503, "difference": 0.109, "interval": [0.09, 0.128]},
        },
        "verdict": "above baseline",
    }  # fmt: skip
    return {
        **whole,
        **{key: value for key, value in changes.items() if key not in ("settings", "details")},
        "details": {**details, **changes.get("details", {})},
        "settings": {**settings, **changes.get("settings", {})},
    }


def row(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A line of predictions.jsonl: a wrong answer to a question about picture number // 3."""
    whole = {
        "benchmark": "pope", "settings": "5e77", "id": f"q{number}", "group": f"COCO_val2014_{number // 3:012}.jpg",
        "prompt": "Is there a dog in the image?\nAnswer the question using a single word or phrase.",
        "prediction": "Yes, there is a dog.", "parsed": "yes", "reference": {"label": "no", "category": "random"},
        "score": 0.0, "truncated": False, "unparsable": False,
    }  # fmt: skip
    return {**whole, **changes}


def write(folder: Path, entries: list[Any], rows: list[Any] | None = None, pictures: list[Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(entries), encoding="utf-8")
    for name, content in (("predictions", [row()] if rows is None else rows), ("pictures", pictures)):
        if content is not None:
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in content))
    return folder


def full_folder(folder: Path) -> Path:
    """An evaluation of four benchmarks as a run leaves it, with everything that the page can show."""
    blind = {"verdict": "not shown to use its pictures", "blank": {"difference": 0.004, "interval": [-0.006, 0.014]}}
    looks = {"verdict": "uses its pictures", "shuffled": {"difference": 0.109, "interval": [0.09, 0.128]}}
    f1 = {"f1": {"value": 0.669, "interval": [0.655, 0.683], "top": 1.0}}
    entries = [
        entry(split=split, n=n, headline=variant == "vlmevalkit", variant=variant,
              verdict="not above baseline" if split == "category=adversarial" else "above baseline",
              details={"measures": f1, "bias": YES_NO, "pictures": looks})
        for variant in ("vlmevalkit", "official", "lmms")
        for split, n in (("all", 9000), *((f"category={name}", 3000) for name in ("random", "popular", "adversarial")))
    ]  # fmt: skip
    points = {"always_yes": {"score": 700.0, "difference": 4.3, "interval": [-9.0, 17.5]}}
    tasks = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
    entries += [
        entry("mme", variant="lmms", split="all", n=2374, groups=1187, score=704.3, metric="total", top=2800.0,
              interval=[689.0, 719.9], baselines=points, verdict="not above baseline",
              details={"measures": {"perception": {"value": 502.0, "interval": [490.1, 513.0], "top": 2000.0}},
                       "pictures": blind}),
        *[entry("mme", variant="lmms", split=f"category={task}", n=60, groups=30, score=52.1, metric="score", top=200.0,
                interval=[48.0, 61.0],
                baselines={"always_yes": {"score": 50.0, "difference": 2.1, "interval": [-2.0, 11.0]}},
                verdict="not above baseline") for task in tasks],
        entry("scienceqa", variant="llava", n=4241, groups=4241, score=0.481, interval=[0.466, 0.496],
              details={"bias": LETTERS, "pictures": blind, "word_as_letter": 12,
                       "warnings": ["letters are answered unevenly"],
                       "trained_on": {"pictures": 31, "score_on_the_rest": 0.47}}),
        entry("vqav2", variant="lmms", n=1000, score=0.129, interval=[0.11, 0.15], unparsable=0.124, truncated=0.31,
              verdict="not above baseline", settings={"id": "0c12", "limit": 1000, "ocr": "rapidocr"},
              baselines={"always_yes": {"score": 0.26, "difference": -0.131, "interval": [-0.15, -0.11]}}),
    ]  # fmt: skip
    rows = [
        row(n, reference={"label": "no", "category": c}, score=float(n % 4 == 0))
        for n, c in enumerate(["random", "popular", "adversarial"] * 12)
    ]
    rows[1] |= {"prediction": "word " * 10_000, "truncated": True, "unparsable": True, "parsed": None}
    rows[2] |= {"prediction": "نعم، هناك كلب \u202e 🐕 <script>alert(1)</script>"}
    science = {"choices": ["the heart", "the lungs"], "gold": "B", "has_image": True}
    organ = {"benchmark": "scienceqa", "prompt": "Which organ?\nA. the heart\nB. the lungs", "reference": science}
    rows += [row(n, group=f"s{n}", prediction="A", parsed="A", **organ) for n in range(5)]
    (folder / "pictures").mkdir(parents=True)
    kept = []
    for number in (1, 2, 5, 7, 9, 10):
        Image.effect_noise((320, 200 + 40 * (number % 3)), 60).convert("RGB").save(
            folder / "pictures" / f"{number}.jpg"
        )
        kept.append({"benchmark": "pope", "settings": "5e77", "id": f"q{number}", "file": f"pictures/{number}.jpg"})
    return write(folder, entries, rows, kept)
