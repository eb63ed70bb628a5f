"""Every question of every benchmark can be asked under every condition that is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.evaluation.asked import question, settings
from tests.evaluation.readers import (
    test_captions,
    test_choices,
    test_clips,
    test_galleries,
    test_medical,
    test_mixed_kinds,
    test_mmbench,
    test_open_answers,
    test_prepared,
    test_yes_and_no,
)
from vlm.benchmarks import benchmark_settings
from vlm.contracts.benchmark import Question, Reader
from vlm.evaluation.prepared import Prepared
from vlm.evaluation.prompts import LETTERS, ask, options_of
from vlm.evaluation.readers.galleries import Galleries
from vlm.evaluation.readers.pope import Pope
from vlm.evaluation.readers.prepared import Answers, Captions, Classes, Facts
from vlm.evaluation.readers.scienceqa import ScienceQa
from vlm.evaluation.readers.vqav2 import VqaV2
from vlm.evaluation.runner import Asking, Task

CONF = Path(__file__).resolve().parents[2] / "conf/benchmark"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
DIGIT = test_prepared.chat(("", "two"))
CAPTION = {"kind": "caption", "caption": "a red circle", "meta": {"color": "red", "shape": "circle"}}

SMALL: dict[str, Callable[[Path], Reader]] = {  # class of a reader -> small files of its form
    "VqaV2": lambda path: VqaV2(test_open_answers.vqav2(path)),
    "TextVqa": test_open_answers.textvqa,
    "ChartQa": test_open_answers.chartqa,
    "DocVqa": lambda path: test_open_answers.docvqa(path, ["red", "Red"]),
    "Pope": lambda path: Pope(str(test_yes_and_no.pope(path))),
    "Mme": test_yes_and_no.mme,
    "ScienceQa": lambda path: ScienceQa(test_choices.scienceqa(path)),
    "Ai2d": test_choices.ai2d,
    "PmcVqa": test_choices.pmc,
    "MmBench": lambda path: test_mmbench.table(path, *test_mmbench.rolls(), test_mmbench.row(8, ("kite", "boat"), "A"), test_mmbench.row(8 + 1_000_000, ("boat", "kite"), "B")),
    "Mmmu": lambda path: test_mixed_kinds.mmmu(path, test_mixed_kinds.mmmu_row(), test_mixed_kinds.open_row()),
    "MathVista": lambda path: test_mixed_kinds.mathvista(
        path, test_mixed_kinds.CHOICE, test_mixed_kinds.DECIMAL, test_mixed_kinds.math_row(3), test_mixed_kinds.LIST
    ),
    "MvBench": test_clips.mvbench,
    "VideoMme": test_clips.videomme,
    "MedicalTable": lambda path: test_medical.table(path, "yes", "Left lobe", "No"),
    "Slake": test_medical.slake,
    "Flickr8k": test_captions.authors,
    "Answers": lambda path: Answers(test_prepared.prepared(path, DIGIT, DIGIT)),
    "Captions": lambda path: Captions(test_prepared.prepared(path, CAPTION)),
    "Classes": lambda path: Classes(test_prepared.prepared(path, CAPTION), names=["a red circle", "a hill"]),
    "Galleries": lambda path: Galleries(test_galleries.twenty(path), 6),
    "Flickr8kGallery": test_galleries.flickr8k,
    "Facts": lambda path: Facts(test_prepared.prepared(path, CAPTION), values={"color": ["red"], "shape": ["circle"]}),
}  # fmt: skip


@dataclass(frozen=True)
class Held:
    """Questions that need no files."""

    held: Sequence[Question]
    folder: str = "."
    files: Callable[[], list[str]] = field(default=list)

    def questions(self):
        return iter(self.held)


def task(prepared: Prepared, folder: Path, shifts: int = 500) -> Task:
    speaks = prepared.settings.decoding != "similarity"
    return Task(prepared, Asking("model", "weights", folder, None, 0, shifts, None, speaks), folder)


def asked_under(made: Task) -> dict[str, list[tuple[Question, Question]]]:
    """Condition -> questions before and after the change, each of them put to a model."""
    found = {}
    for condition in made.conditions:
        pairs = [(before, condition.change(before)) for before in condition.questions]
        for _, after in pairs:
            ask(after, made.settings, lettered=condition.name != "unlettered", inline=False)
            ask(after, made.settings, lettered=condition.name != "unlettered")
        found[condition.name] = pairs
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_condition_changes_every_question_of_a_benchmark_and_only_what_it_is_there_for(name, tmp_path):
    kind = yaml.safe_load((CONF / f"{name}.yaml").read_text("utf-8"))["reader"]["_target_"].rpartition(".")[2]
    reader = SMALL[kind](tmp_path)
    made = task(Prepared(benchmark_settings(name, {"split_by": []}), reader), tmp_path)
    found = asked_under(made)
    assert [after.id for _, after in found["seen"]] == [one.id for one in reader.questions()]
    assert all(before == after for before, after in found["seen"])
    for condition, pairs in found.items():
        for before, after in pairs:
            assert (after.id, after.text, len(after.pictures)) == (before.id, before.text, len(before.pictures))
            assert sorted(after.options) == sorted(before.options)
            if condition.startswith("shift"):
                assert right(after) == right(before)
                assert tuple(bare(after)) == after.options
                assert after.pictures == before.pictures
            else:
                assert (after.reference, after.options) == (before.reference, before.options)
    assert {"blank", "shuffled"} & set(found) == set(made.settings.controls), "pictures have controls, clips have none"


def bare(asked: Question) -> list[str]:
    """Options of the gold data, without the letters that some of them carry."""
    pairs = list(zip(LETTERS, options_of(asked.reference) or [], strict=False))
    carried = all(text.startswith(f"{letter}. ") for letter, text in pairs)
    return [text.removeprefix(f"{letter}. ") if carried else text for letter, text in pairs]


def right(asked: Question) -> str:
    return bare(asked)[LETTERS.index(asked.reference["gold"])]


def test_what_names_no_right_letter_is_not_asked_again_with_moved_options(tmp_path):
    """MathVista's gold data are the answer's text, MMBench's questions are shifts already."""
    for kind, name in (("MathVista", "mathvista"), ("MmBench", "mmbench")):
        made = task(Prepared(benchmark_settings(name, {}), SMALL[kind](tmp_path / name)), tmp_path)
        assert set(asked_under(made)) == {"seen", "blank", "shuffled"}


def mixed(key: str, held: Callable[[Sequence[str]], Any]) -> list[Question]:
    """Two questions of each number of options, from 2 to 5; the first right, then the last. held: as gold data have them."""
    found = []
    for number in range(8):
        options = ("A. teal", "red", "green", "blue", "grey")[: 2 + number // 2]
        gold = LETTERS[0 if number % 2 else len(options) - 1]
        found.append(
            question(number, {key: held(options), "gold": gold, "has_image": True, "task": "t"}, options=options)
        )
    return found


@pytest.mark.parametrize(
    ("scorer", "variant", "key", "held"),
    [
        ("scienceqa", "llava", "choices", list),
        ("mvbench", "vlmevalkit-mc", "candidates", list),
        ("ai2d", "vlmevalkit-mc", "options", lambda texts: dict(zip(LETTERS, texts, strict=False))),
        ("ai2d", "vlmevalkit-mc", "options", lambda texts: [f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False)]),
    ],
    ids=["list", "candidates", "dict", "with their letters"],
)  # fmt: skip
def test_questions_of_two_to_five_options_are_moved_as_often_as_they_have_options(scorer, variant, key, held, tmp_path):
    how = settings(scorer=scorer, variants=[variant], prompt="{question} {options}", controls=[])
    found = asked_under(task(Prepared(how, Held(mixed(key, held))), tmp_path))
    assert {name: len(pairs) for name, pairs in found.items()} == {
        "seen": 8, "shift1": 8, "shift2": 6, "shift3": 4, "shift4": 2, "unlettered": 8,
    }  # fmt: skip
    for name in ("shift1", "shift2", "shift3", "shift4"):
        for before, after in found[name]:
            assert (right(after), tuple(bare(after))) == (right(before), after.options)
            assert after.reference["gold"] != before.reference["gold"]


def test_where_options_are_compared_as_texts_their_letters_do_not_matter(tmp_path):
    how = settings(scorer="scienceqa", variants=["llava"], decoding="likelihood", controls=[])
    for candidates, names in (("letters", {"seen", "shift1", "shift2", "shift3", "shift4"}), ("options", {"seen"})):
        held = Held(mixed("choices", list))
        made = task(Prepared(replace(how, candidates=candidates), held), tmp_path / candidates)
        assert set(asked_under(made)) == names
