"""Given answers weighed by their probability: branches of one row say what each answer alone says."""

from __future__ import annotations

import pytest
import torch

from tests.models.speakers import NAMES, TEXT, speaker, views
from vlm.contracts.batch import IGNORE
from vlm.contracts.errors import InputError
from vlm.contracts.sample import Turn
from vlm.models.likelihood import log_probabilities
from vlm.models.vlm import VLM

ANSWERS = ("one", "on", "three", "e")


@pytest.fixture(scope="module", params=NAMES)
def model(request, tmp_path_factory) -> VLM:
    return speaker(request.param, tmp_path_factory.mktemp("model"))


def talks(parts, answers=ANSWERS) -> list[tuple[Turn, ...]]:
    return [(Turn("user", tuple(parts)), Turn("assistant", (answer,))) for answer in answers]


def alternatives(model: VLM, made, texts, first: int = 0):
    return model.processor.alternatives(texts, made, range(first, first + len(made)))


def alone(model: VLM, made, turns) -> tuple[float, int]:
    """One answer's log-probability from a plain forward pass over its own row, the end included."""
    row = model.processor.row(turns, [1] * len(made), False, None)
    identities = list(range(len(made)))
    batch = model.processor.collate([model.processor._example("", [row], [turns], made, identities)])
    with torch.no_grad():
        embeds, _ = model.fusion(batch, model.encoder, model.connector, model.llm)
        logits = model.llm.logits(model.llm(embeds, batch.positions))[0].double().log_softmax(-1)  # type: ignore[operator]
    places = (batch.labels[0] != IGNORE).nonzero().flatten()
    return float(logits[places - 1, batch.labels[0, places]].sum()), len(places)


def test_answers_as_branches_have_the_log_probabilities_of_each_alone(model):
    """Several questions about one picture, two pictures, and none, in one batch of ragged rows."""
    made = views(model, 3)
    rows = [
        (made[:1], talks((0, TEXT[:4]))),
        (made[1:2], talks((0, TEXT[:4])) + talks((0, TEXT[:7]), ("two", "z"))),
        (made[:2], talks((0, TEXT[:2], 1, TEXT[:3]))),
        ([], talks((TEXT[:5],))),
    ]
    examples = [alternatives(model, given, texts, number) for number, (given, texts) in enumerate(rows)]
    found = log_probabilities(model, examples, [len(texts) for _, texts in rows])
    for (given, texts), values in zip(rows, found, strict=True):
        wanted = [alone(model, given, turns) for turns in texts]
        assert [count for _, count in values] == [count for _, count in wanted]
        assert [total for total, _ in values] == pytest.approx([total for total, _ in wanted], abs=2e-4)


def test_an_answer_behind_a_picture_is_weighed_with_that_picture(model):
    """Nothing but the picture is shared, so no branch could copy its last token."""
    made = views(model, 2)
    texts = [(Turn("user", (0,)), Turn("assistant", (answer,))) for answer in ANSWERS]
    found = log_probabilities(
        model, [alternatives(model, made[:1], texts), alternatives(model, made[1:], texts, 1)], [4, 4]
    )
    for given, values in zip((made[:1], made[1:]), found, strict=True):
        assert [total for total, _ in values] == pytest.approx(
            [alone(model, given, turns)[0] for turns in texts], abs=2e-4
        )
    assert found[0] != found[1]


def test_the_end_belongs_to_an_answer_so_a_beginning_of_another_is_no_free_win(model):
    (values,) = log_probabilities(model, [alternatives(model, views(model, 1), talks((0, TEXT[:4])))], [4])
    counts = dict(zip(ANSWERS, (count for _, count in values), strict=True))
    encoded = {answer: len(model.processor.tokenizer.encode(answer)) for answer in ANSWERS}
    assert all(counts[answer] == encoded[answer] + 1 for answer in ANSWERS)


def test_an_answer_that_does_not_fit_is_refused_and_never_judged_by_its_beginning(model):
    with pytest.raises(InputError, match=r"text_long|leave no room"):
        alternatives(model, views(model, 1), talks((0, TEXT[:4]), ("one", "three" * 40)))


def test_weighing_leaves_the_model_in_its_mode(model):
    model.train()
    try:
        log_probabilities(model, [alternatives(model, views(model, 1), talks((0, TEXT[:4])))], [4])
        assert model.training
    finally:
        model.eval()
