"""The readers read what `python -m data_prep.forms` writes, and its known scores come out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from data_prep.forms.__main__ import FormsSettings, main
from tests.data_prep.drawn import wheel
from tests.data_prep.published import cached
from tests.data_prep.written_forms import written
from tests.evaluation.readers.written import headline, is_perfect, put, read, refused
from vlm.contracts.benchmark import Question, Reader
from vlm.evaluation.readers.mme import Mme
from vlm.evaluation.readers.pope import Pope
from vlm.evaluation.readers.scienceqa import ScienceQa
from vlm.evaluation.readers.vqav2 import VqaV2

SMALL = "small/coco_pope_{kind}.json"
Reply = Callable[[Question], str]
TRUTH: dict[str, Reply] = {
    "vqav2": lambda question: question.reference["answers"][0],
    "pope": lambda question: question.reference["label"],
    "mme": lambda question: question.reference["answer"],
    "scienceqa": lambda question: question.reference["gold"],
}


def readers(home: Path) -> dict[str, Reader]:
    return {
        "vqav2": VqaV2(str(home / "vqav2")),
        "pope": Pope(str(home / "pope")),
        "mme": Mme(str(home / "mme")),
        "scienceqa": ScienceQa(str(home / "scienceqa")),
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """All forms of twelve invented test pictures."""
    return written(tmp_path / "forms", wheel(tmp_path))


@pytest.mark.parametrize("form", TRUTH)
def test_every_form_is_read_whole_and_the_truth_is_right(home: Path, form: str) -> None:
    reader = readers(home)[form]
    questions = read(reader)
    assert len({picture.id for question in questions for picture in question.pictures}) == 12
    assert len({question.id for question in questions}) == len(questions)
    assert is_perfect(reader, form, TRUTH[form])


def test_forms_have_their_numbers_of_questions(home: Path) -> None:
    counts = {form: len(read(reader)) for form, reader in readers(home).items()}
    assert counts == {"vqav2": 48, "pope": 3 * 12 * 6, "mme": 4 * 12 * 2, "scienceqa": 12}
    assert len(read(Pope(str(home / "pope"), tables=SMALL))) == 3 * 12 * 6


def test_constants_get_what_the_forms_promise(home: Path) -> None:
    made = readers(home)
    assert headline(made["pope"], "pope", lambda question: "yes") == 0.5
    assert headline(made["mme"], "mme", lambda question: "no") == pytest.approx(200)
    assert headline(made["scienceqa"], "scienceqa", lambda question: "A") == 0.25


def test_a_changed_table_or_picture_of_a_form_is_found_by_its_checksums(home: Path) -> None:
    table = home / "pope/coco_pope_random.json"
    put(table, table.read_text().replace("yes", "no", 1))
    refused(Pope(str(home / "pope")), "coco_pope_random.json is another version or damaged")
    question = read(readers(home)["scienceqa"])[0]
    path = home / "scienceqa" / question.pictures[0].id
    Image.new("RGB", (9, 9)).save(path)
    with pytest.raises(ValueError, match=r"image.png is another version or damaged"):
        question.pictures[0].read()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All forms of the real package."""
    return written(tmp_path_factory.mktemp("published") / "forms", cached("pip", "easy-vqa"))


@pytest.mark.slow
@pytest.mark.published
def test_the_real_forms_have_their_published_counts_and_scores(published: Path) -> None:
    """9,673, 3 x 5,664 (small 3 x 3,000), 7,250 and 944 questions; always yes 37.3, 50 and F1 66.67, 200 of 800."""
    vqav2 = VqaV2(str(published / "vqav2"), expected={"questions": 9673})
    pope = Pope(str(published / "pope"), expected={"random": 5664, "popular": 5664, "adversarial": 5664})
    small = Pope(str(published / "pope"), tables=SMALL, expected={"random": 3000, "popular": 3000, "adversarial": 3000})
    mme = Mme(str(published / "mme"), expected={"questions": 7250, "existence": 1888, "position": 1586})
    scienceqa = ScienceQa(str(published / "scienceqa"), expected={"questions": 944, "with_pictures": 944})
    for name, reader in (("vqav2", vqav2), ("pope", pope), ("pope", small), ("mme", mme), ("scienceqa", scienceqa)):
        assert is_perfect(reader, name, TRUTH[name])
    assert headline(mme, "mme", TRUTH["mme"]) == pytest.approx(800)
    assert round(100 * headline(vqav2, "vqav2", lambda question: "yes"), 1) == 37.3
    assert headline(small, "pope", lambda question: "yes") == 0.5
    assert headline(mme, "mme", lambda question: "yes") == pytest.approx(200)
    assert headline(scienceqa, "scienceqa", lambda question: "B") == 0.25


@pytest.mark.slow
@pytest.mark.published
def test_real_maps_are_read_as_choices(tmp_path: Path) -> None:
    main(FormsSettings(tmp_path, ["maps"], cached("apt", "kgeography-data"), areas=40))
    reader = ScienceQa(str(tmp_path / "maps"))
    assert {question.reference["topic"] for question in read(reader)} == {"areas", "capitals"}
    assert is_perfect(reader, "scienceqa", TRUTH["scienceqa"])
