"""What held-out questions of the real packages score, with nothing seen and with the truth.

The scorers here are small and plain: they follow the published rules for answers that are copies of the truth or
constant, which is all that these tests give them.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_prep.forms.__main__ import package
from data_prep.forms.maps import MARK, UNDER, areas
from data_prep.forms.material import Material
from data_prep.forms.writing import write
from data_prep.reading.archive import files
from data_prep.reading.shapes import drawings
from data_prep.rows import Inputs
from tests.data_prep.published import cached
from tests.data_prep.written_forms import annotated, mme, pope, problems, written

pytestmark = [pytest.mark.slow, pytest.mark.published]
POPE = ("random", "popular", "adversarial")
Answers = Callable[[str], str]  # question -> reply


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """All forms of the real package."""
    return written(tmp_path_factory.mktemp("forms") / "out", cached("pip", "easy-vqa"))


def vqa_score(reply: str, answers: list[dict[str, Any]]) -> float:
    """Mean over the ten of min(1, equal ones among the other nine / 3)."""
    equal = [reply == answer["answer"] for answer in answers]
    return sum(min(1.0, (sum(equal) - own) / 3) for own in equal) / len(equal)


def percent(values: Iterable[float]) -> float:
    scores = list(values)
    return round(100 * sum(scores) / len(scores), 1)


def f1(rows: list[dict[str, Any]], reply: Answers) -> tuple[float, float]:
    """(accuracy, F1) in percent; yes is the positive class."""
    found = Counter((row["label"], reply(row["text"])) for row in rows)
    both, said, true = found["yes", "yes"], found["no", "yes"], found["yes", "no"]
    right = both + found["no", "no"]
    return round(100 * right / len(rows), 2), round(200 * both / (2 * both + said + true), 2)


def mme_scores(rows: list[dict[str, Any]], reply: Callable[[dict[str, Any]], str]) -> dict[str, float]:
    """category -> 100 * accuracy + 100 * share of pictures with both right."""
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        right[row["category"]][row["question_id"]].append(reply(row) == row["answer"])
    scores = {}
    for category, pairs in right.items():
        assert all(len(pair) == 2 for pair in pairs.values())
        count = len(pairs)
        scores[category] = (
            100 * sum(map(sum, pairs.values())) / (2 * count) + 100 * sum(map(all, pairs.values())) / count
        )
    return scores


def commonest(pairs: Iterable[tuple[str, str]]) -> Answers:
    """For each question text its commonest answer; of unknown texts the commonest of all."""
    seen: Mapping[str, Counter[str]] = defaultdict(Counter)
    every: Counter[str] = Counter()
    for text, answer in pairs:
        seen[text][answer] += 1
        every[answer] += 1
    best = {text: counts.most_common(1)[0][0] for text, counts in seen.items()}
    default = every.most_common(1)[0][0]
    return lambda text: best.get(text, default)


@pytest.fixture(scope="module")
def blind() -> Answers:
    """Always the commonest training answer of the same question."""
    train = drawings(Inputs({"data": cached("pip", "easy-vqa")}), "train")
    prior = commonest((question.text, question.answer) for drawing in train for question in drawing.questions)
    return lambda text: prior(text.lower())


def test_vqav2_has_9673_questions_and_its_known_scores(made: Path, blind: Answers) -> None:
    rows = list(annotated(made))
    assert len(rows) == 9673
    assert percent(vqa_score(entry["multiple_choice_answer"], entry["answers"]) for _, entry in rows) == 100.0
    assert percent(vqa_score("yes", entry["answers"]) for _, entry in rows) == 37.3
    assert percent(vqa_score(blind(text), entry["answers"]) for text, entry in rows) == 67.0
    for kind, count, score in (("yes/no", 7136, 82.5), ("other", 2537, 23.3)):
        part = [(text, entry) for text, entry in rows if entry["answer_type"] == kind]
        assert len(part) == count
        assert percent(vqa_score(blind(text), entry["answers"]) for text, entry in part) == score


@pytest.mark.parametrize(("folder", "count"), [("", 5664), ("small/", 3000)])
@pytest.mark.parametrize("kind", POPE)
def test_pope_is_balanced_and_its_constant_is_50_and_66_67(made, blind, folder: str, count: int, kind: str) -> None:
    rows = pope(made / f"pope/{folder}coco_pope_{kind}.json")
    truth = {row["question_id"]: row["label"] for row in rows}
    assert len(rows) == len(truth) == count
    assert Counter(row["label"] for row in rows) == {"yes": count // 2, "no": count // 2}
    assert set(Counter(row["image"] for row in rows).values()) == {6}
    assert len({(row["image"], row["text"]) for row in rows}) == count
    assert f1(rows, lambda text: "yes") == (50.0, 66.67)
    assert f1(rows, blind)[0] == 50.0
    assert percent(truth[row["question_id"]] == row["label"] for row in rows) == 100.0


def test_pope_asks_the_same_pictures_the_same_questions_with_yes(made: Path) -> None:
    files = [pope(made / f"pope/coco_pope_{kind}.json") for kind in POPE]
    present = [[(row["image"], row["text"]) for row in rows if row["label"] == "yes"] for rows in files]
    assert present[0] == present[1] == present[2]
    absent = [{(row["image"], row["text"]) for row in rows if row["label"] == "no"} for rows in files]
    assert absent[0] != absent[1] != absent[2]


@pytest.mark.parametrize(("kind", "accuracy"), [("random", 50), ("popular", 83), ("adversarial", 50)])
def test_what_questions_of_the_same_making_give_away(made: Path, kind: str, accuracy: int) -> None:
    """Learned from one half of the pictures, asked about the other: the README's numbers, within two points."""
    rows = pope(made / f"pope/coco_pope_{kind}.json")
    halves = rows[: len(rows) // 12 * 6], rows[len(rows) // 12 * 6 :]
    learned = commonest((row["text"], row["label"]) for row in halves[0])
    assert f1(halves[1], learned)[0] == pytest.approx(accuracy, abs=2.5)


def test_mme_gives_50_a_subtask_to_a_constant_and_800_to_the_truth(made: Path) -> None:
    rows = mme(made)
    pictures = Counter(row["category"] for row in rows)
    assert {name: count // 2 for name, count in pictures.items()} == {
        "existence": 944, "color": 944, "position": 793, "conjunction": 944,
    }  # fmt: skip
    assert all(row["question"].endswith(" Please answer yes or no.") for row in rows)
    for constant in ("Yes", "No"):
        assert mme_scores(rows, lambda row, constant=constant: constant) == dict.fromkeys(pictures, 50.0)
    assert sum(mme_scores(rows, lambda row: row["answer"]).values()) == 800.0


def test_scienceqa_has_944_questions_whose_right_answers_lie_evenly(made: Path) -> None:
    rows = list(problems(made / "scienceqa").values())
    assert Counter(row["answer"] for row in rows) == dict.fromkeys(range(4), 236)
    assert all(len(set(row["choices"])) == 4 for row in rows)
    test = {drawing.key: drawing for drawing in drawings(Inputs({"data": cached("pip", "easy-vqa")}), "test")}
    by_pixels = {hashlib.sha256(drawing.data or b"").hexdigest(): drawing.colour for drawing in test.values()}
    for pid, row in problems(made / "scienceqa").items():
        picture = (made / f"scienceqa/images/test/{pid}/image.png").read_bytes()
        assert row["choices"][row["answer"]] == by_pixels[hashlib.sha256(picture).hexdigest()]


def test_maps_ask_for_the_area_that_is_red(tmp_path: Path) -> None:
    material = Material({"kgeography-data": cached("apt", "kgeography-data")}, areas=40)
    told = write("maps", material, tmp_path, package("kgeography-data"))
    rows = problems(tmp_path / "maps")
    assert told["rows"]["problems.json"] == len(rows) > 60
    assert {row["topic"] for row in rows.values()} == {"areas", "capitals"}
    assert max(Counter(row["answer"] for row in rows.values()).values()) <= len(rows) // 4 + 1
    for pid in rows:
        with Image.open(tmp_path / f"maps/images/test/{pid}/image.png") as picture:
            colours = picture.convert("RGB").getcolors(256) or []
        assert [colour for _, colour in colours if len(set(colour)) > 1] == [MARK]  # type: ignore[arg-type]


def test_the_maps_have_the_published_areas_and_capitals() -> None:
    found = files(cached("apt", "kgeography-data"), UNDER, (".kgm",))
    every = [area for file in found for area in areas(file.name, file.data)]
    assert len(found) == 154
    assert (len(every), sum(area.capital is not None for area in every)) == (3050, 2886)
