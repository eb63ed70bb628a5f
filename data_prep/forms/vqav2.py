"""VQAv2: open and yes/no questions with ten human answers each; here all ten are the annotated one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from data_prep.forms.material import File, Material
from data_prep.reading.shapes import Drawing, Question

FIRST = 900_000_000_000  # picture number 0; no number of COCO is as large
TYPES = (  # beginnings of questions, the longer ones first
    "what is the color of the", "what color is the", "what is the", "what shape", "does the image not contain a",
    "does the image contain a", "is there not a", "is there a", "is no", "is a",
)  # fmt: skip
ABOUT = f"""All questions about all 1,000 pictures. Picture names and numbers have the original's form, from {FIRST}
on, and end in .jpg because readers make the name from the number; the bytes are the package's PNG. Always the commonest
answer (yes): 37.3. Always the commonest training answer of the same question text: 67.0, of the open questions 23.3; so
report the open ones apart."""


def files(material: Material) -> Iterator[File]:
    info = {"description": "easy-VQA's test pictures in the form of VQAv2", "version": "1.0"}
    about = {"info": info, "data_type": "mscoco", "data_subtype": "val2014", "license": {"name": "MIT"}}
    questions, annotations = [], []
    for drawing in material.test:
        for place, entry in enumerate(drawing.questions):
            ids = {"image_id": FIRST + drawing.number, "question_id": (FIRST + drawing.number) * 1000 + place}
            questions.append({**ids, "question": entry.text})
            annotations.append({**ids, **_annotation(entry)})
    content = {"task_type": "Open-Ended", **about, "questions": questions}
    yield File("v2_OpenEnded_mscoco_val2014_questions.json", json.dumps(content).encode(), len(questions))
    content = {**about, "annotations": annotations}
    yield File("v2_mscoco_val2014_annotations.json", json.dumps(content).encode(), len(annotations))
    for drawing in material.test:
        if drawing.data is not None:
            yield File(f"val2014/{_name(drawing)}", drawing.data)


def _name(drawing: Drawing) -> str:
    return f"COCO_val2014_{FIRST + drawing.number:012d}.jpg"


def _annotation(entry: Question) -> dict[str, Any]:
    answer = {"answer": entry.answer, "answer_confidence": "yes"}
    return {
        "question_type": next((kind for kind in TYPES if entry.text.startswith(kind)), "none of the above"),
        "answer_type": "yes/no" if entry.kind == "yesno" else "other",
        "multiple_choice_answer": entry.answer,
        "answers": [{**answer, "answer_id": number} for number in range(1, 11)],
    }
