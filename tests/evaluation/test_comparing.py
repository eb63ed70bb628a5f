"""A model of two towers answers a benchmark: galleries by rank, named answers by similarity, whatever the batch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.asked import choices, picture, question, settings, yes_no
from tests.evaluation.commands import entries, lines, run, words
from tests.evaluation.towers import caption, captioned, taught, two_towers
from tests.models.speakers import speaker
from vlm.contracts.benchmark import Question, Reply
from vlm.contracts.errors import InputError, RunError
from vlm.contracts.settings import BenchmarkSettings
from vlm.data.captions import CaptionProcessor
from vlm.evaluation.answerers import answerer
from vlm.evaluation.comparing import Comparing
from vlm.evaluation.conditions import Blank, other_pictures, shuffled
from vlm.evaluation.prepared import Prepared
from vlm.evaluation.prompts import ask
from vlm.evaluation.readers.galleries import Galleries, Pair, searches
from vlm.evaluation.scorers.retrieval import ranks
from vlm.evaluation.subset import share
from vlm.evaluation.suited import refuse_unsuited
from vlm.evaluation.watch import Watch, Watched
from vlm.models.two_tower import TwoTower
from vlm.training.weights import save_model

SEARCH = settings(scorer="retrieval", variants=["clipbench"], decoding="similarity")
NAMES = [caption(number) for number in range(6)]
NAMED = settings(scorer="zeroshot", variants=["clipbench"], decoding="likelihood", candidates=NAMES)
SMALL = [
    "benchmarks=[small_retrieval]", "change.small_retrieval.reader.gallery=8",
    "change.small_retrieval.reader.expected=null",
]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> TwoTower:
    return two_towers()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """64 captioned pictures where small_retrieval looks for them."""
    root = tmp_path_factory.mktemp("data")
    captioned(root / "captions_small" / "val", [caption(number) for number in range(64)])
    return root


@pytest.fixture(scope="module")
def learned(data, tmp_path_factory) -> Path:
    """Folder of a model that knows these pictures."""
    folder = tmp_path_factory.mktemp("taught") / "model"
    save_model(taught(two_towers(), data / "captions_small" / "val"), folder)
    return folder


def gallery(count: int = 9, each: int = 1) -> list[Question]:
    pairs = [Pair(str(n), picture(n), tuple(caption(each * n + more) for more in range(each))) for n in range(count)]
    return list(searches(pairs, "one"))


def shown(count: int = 12) -> list[Question]:
    return [question(number, {"label": NAMES[number % 6]}, [number], text="") for number in range(count)]


def replies(model: TwoTower, asked, batch: int = 8, how: BenchmarkSettings = SEARCH) -> dict[str, Reply]:
    parts = answerer(model, how, batch)(asked, partial(ask, settings=how))
    return {reply.id: reply for part in parts for reply in part}


def test_ranks_are_those_of_the_whole_matrix_of_similarities(model):
    """The reference embeds every picture and every caption alone, and ranks as the published scorer does."""
    for each in (1, 3):
        asked = gallery(7, each)
        pictures, texts = asked[-1].pictures, asked[0].options
        rows = []
        with torch.no_grad():
            for one in pictures:
                view = model.processor.question("", [_opened(one)]).views[0]
                rows.append(model.image_rows(view[None])[0][0])
            columns = [
                model.text_rows(ids, torch.ones_like(ids, dtype=torch.bool))[0]
                for ids in (_ids(model.processor, text) for text in texts)
            ]
        matrix = torch.stack(columns).double() @ torch.stack(rows).double().T
        of_texts, of_images, _ = ranks(matrix.float().numpy(), np.repeat(np.arange(7), each))
        said = [int(reply.prediction) for reply in replies(model, asked).values()]
        assert said == [*of_images.tolist(), *of_texts.tolist()]
        assert len(set(said)) > 3


def test_answers_depend_neither_on_the_batch_nor_on_the_order_nor_on_the_number_of_parts(model):
    for asked, how in ((gallery(), SEARCH), (shown(), NAMED)):
        alone = {name: reply for one in asked for name, reply in replies(model, [one], 1, how).items()}
        assert [replies(model, asked, batch, how) for batch in (1, 3, 64)] == [alone] * 3
        assert replies(model, asked[::-1], 5, how) == alone
        merged = [replies(model, share(asked, part, 3), 4, how) for part in range(3)]
        assert {name: reply for one in merged for name, reply in one.items()} == alone


def test_a_picture_is_encoded_once_for_all_conditions_and_grey_ones_of_all_sizes_once_altogether(model):
    asked = [
        replace(one, pictures=tuple(picture(int(p.id[0]), (24, 20 + int(p.id[0]))) for p in one.pictures))
        for one in gallery(6)
    ]
    seen: list[int] = []
    hook = model.encoder.register_forward_hook(lambda module, given, found: seen.append(len(given[0])))
    try:
        comparing, others = Comparing(model, 4), other_pictures(asked, 0)
        for change in (lambda one: one, lambda one: shuffled(one, others), Blank()):
            list(comparing([change(one) for one in asked], partial(ask, settings=SEARCH)))
    finally:
        hook.remove()
    assert sum(seen) == 6 + 1


def test_one_grey_picture_for_all_finds_nothing(model):
    said = replies(model, [Blank()(one) for one in gallery()])
    by_text = [reply.prediction for name, reply in said.items() if "text_to_image" in name]
    assert by_text == ["8"] * 9


def test_the_most_similar_name_is_the_answer_and_five_are_told_in_order(model):
    said = replies(model, shown(), how=NAMED)
    assert all(len(reply.prediction.split("\n")) == 5 for reply in said.values())
    first = replies(model, shown(), how=replace(NAMED, scorer="digit_names"))
    assert {name: reply.prediction.split("\n")[0] for name, reply in said.items()} == {
        name: reply.prediction for name, reply in first.items()
    }
    assert len({reply.prediction for reply in first.values()}) > 1


def test_names_that_are_one_to_the_text_tower_are_tied_and_no_answer(model):
    how = replace(NAMED, candidates=["a red thing", "A RED THING"])  # its tokenizer knows lower case alone
    assert {(reply.prediction, reply.fault) for reply in replies(model, shown(), how=how).values()} == {
        ("", "tied: 2 answers are equally similar")
    }


def test_weights_that_give_no_numbers_end_the_run(model):
    broken = two_towers()
    broken.joint.image.weight.data.fill_(float("nan"))
    with pytest.raises(RunError, match="the vectors of pictures hold nan or inf"):
        replies(broken, gallery())


@pytest.mark.parametrize(
    ("how", "asked", "reason"),
    [
        (settings(), [question(0, yes_no(["yes"])[0])], "decoding=greedy lets a model speak, and this one has no"),
        (settings(decoding="sampled"), [], "decoding=sampled lets a model speak"),
        (
            settings(decoding="likelihood"),
            [],
            "letters say nothing about a picture, .* change.small.candidates=options",
        ),
        (NAMED, [question(0, pictures=[0, 1], text="")], "question q0 shows 2 pictures"),
        (NAMED, [question(0, pictures=[], text="")], "question q0 shows 0 pictures"),
        (NAMED, [question(0)], r"question q0 asks 'nine', .* reads no question(.|\n)*change.small.prompt=''"),
    ],
)
def test_what_needs_speech_a_question_or_several_pictures_is_refused_with_the_reason(how, asked, reason):
    with pytest.raises(InputError, match=reason):
        refuse_unsuited(how, asked, speaks=False)


def test_a_named_prompt_lets_the_options_be_compared_alone(model):
    how = settings(decoding="likelihood", candidates="options", prompt="")
    asked = [question(0, choices("A")[0], options=("red", "green"))]
    refuse_unsuited(how, asked, speaks=False)
    (reply,) = replies(model, asked, how=how).values()
    assert reply.prediction in ("A", "B")


def test_a_model_that_speaks_searches_no_gallery():
    refuse_unsuited(settings(), [], speaks=True)
    with pytest.raises(InputError, match="this model has no text tower; evaluate a model that phase=contrastive"):
        refuse_unsuited(SEARCH, gallery(), speaks=True)


def test_a_text_is_compared_as_it_is_and_other_questions_are_no_search():
    with pytest.raises(InputError, match="texts of a gallery are compared as they are"):
        ask(gallery()[0], replace(SEARCH, prompt="a picture of {question}"))
    with pytest.raises(InputError, match="q0: decoding=similarity searches galleries, and this is no question of one"):
        ask(question(0), SEARCH)


def test_the_command_tells_a_model_that_knows_its_pictures_by_intervals_baselines_and_controls(learned, data, tmp_path):
    code, _, told = run(*words(learned, data, tmp_path, *SMALL))
    assert code == 0, told
    whole, *splits = [entry for entry in entries(tmp_path) if entry["headline"]]
    assert (whole["n"], whole["groups"], whole["metric"]) == (128, 8, "R@1")
    assert [(entry["split"], entry["n"]) for entry in splits] == [
        ("direction=image_to_text", 64), ("direction=text_to_image", 64),
    ]  # fmt: skip
    for entry in (whole, *splits):
        assert entry["baselines"]["guessing"]["score"] == 1 / 8
        assert entry["baselines"]["one vector"]["score"] == 0
        assert entry["interval"][0] > 1 / 8
        assert (entry["verdict"], entry["details"]["pictures"]["verdict"]) == ("above baseline", "uses its pictures")
        assert {"the model with grey pictures", "the model with other questions' pictures"} < set(entry["baselines"])
    assert lines(tmp_path)[0]["prompt"] == "<image 1> among 8 texts"
    assert lines(tmp_path)[8]["prompt"].endswith(" thing among <image 1> to <image 8>")
    assert "trained on" not in told


def test_an_untrained_model_is_not_above_guessing(model, data, tmp_path):
    save_model(model, tmp_path / "model")
    assert run(*words(tmp_path / "model", data, tmp_path / "out", *SMALL))[0] == 0
    (whole, *_) = entries(tmp_path / "out")
    assert whole["verdict"] == "not above baseline"


def test_a_stopped_search_goes_on_and_parts_make_the_whole(learned, data, tmp_path):
    whole, parts = words(learned, data, tmp_path / "a", *SMALL), words(learned, data, tmp_path / "b", *SMALL)
    assert run(*whole)[0] == 0
    for part in ("part=0/2", "part=1/2"):
        assert run(*parts, part)[0] == 0
    assert run(*parts)[0] == 0
    assert [line["prediction"] for line in lines(tmp_path / "a")] == [
        line["prediction"] for line in lines(tmp_path / "b")
    ]


def test_an_illegal_budget_is_refused_with_its_two_neighbours_and_a_legal_one_is_told(learned, data, tmp_path):
    given = words(learned, data, tmp_path, *SMALL, "controls=[]")
    code, said, told = run(*given, "token_budget=17")
    assert (code, said) == (2, "")
    assert "token_budget=17: " in told
    assert "choose token_budget=16 or 19" in told
    for budget in (16, 19):
        code, said, _ = run(*given, f"token_budget={budget}")
        assert code == 0
        assert f"small_retrieval (clipbench, token_budget={budget})" in said
    assert len({entry["settings"]["id"] for entry in entries(tmp_path)}) == 2


def test_what_a_model_of_two_towers_cannot_answer_is_refused_before_anything_starts(learned, data, tmp_path):
    for given in (["benchmarks=[pope]"], ["suite=small"]):
        assert run(*words(learned, data, tmp_path, *given))[0] == 2
    code, _, told = run(*words(learned, data, tmp_path, *SMALL, "ocr=rapidocr"))
    assert code == 2
    assert "this model reads none" in told
    assert not (tmp_path / "sheets").exists()


def test_a_model_that_speaks_is_refused_by_the_command(data, tmp_path):
    save_model(speaker("gpt2_nano", tmp_path / "x"), tmp_path / "model")
    code, _, told = run(*words(tmp_path / "model", data, tmp_path / "out", *SMALL))
    assert code == 2
    assert "this model has no text tower" in told


def test_retrieval_can_be_watched_at_validations(model, data):
    prepared = Prepared(replace(SEARCH, name="small_retrieval"), Galleries(str(data / "captions_small" / "val"), 8))
    (metric,) = Watch([Watched(prepared, 32, speaks=False)])(model).items()
    assert metric[0] == "val/small_retrieval"
    assert 0 <= metric[1] <= 1
    with pytest.raises(InputError, match="has no text tower"):
        Watched(prepared, 32, speaks=True)


def _opened(one):
    from vlm.data.pictures import decode

    return decode(one.read(), one.id)


def _ids(processor: CaptionProcessor, text: str) -> torch.Tensor:
    from vlm.contracts.sample import Turn

    turns = (Turn("user", (0,)), Turn("assistant", (text,)))
    return torch.tensor([processor.row(turns, [1], False, None).ids])
