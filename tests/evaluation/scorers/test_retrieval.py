"""Retrieval: ranks with ties against the model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.scorers.rows import figures, scored
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_answer, scorer
from vlm.evaluation.scorers.retrieval import ranks

OWNER = [0, 0, 1, 2, 2]  # picture of each text


def perfect() -> np.ndarray:
    return np.eye(3)[OWNER]


def test_a_perfect_matrix_finds_everything_first():
    of_texts, of_images, _ = ranks(perfect(), OWNER)
    assert not of_texts.any()
    assert not of_images.any()
    found = score_answer("retrieval", perfect().tolist(), {"text_to_image_index": OWNER})
    assert found["image_retrieval_recall@1"] == found["text_retrieval_recall@1"] == 1.0


def test_one_vector_for_everything_finds_nothing():
    of_texts, of_images, _ = ranks(np.ones((5, 3)), OWNER)
    assert of_texts.tolist() == [2] * 5
    assert of_images.tolist() == [3, 4, 3]  # texts of other pictures
    found = score_answer("retrieval", np.ones((5, 3)).tolist(), {"text_to_image_index": OWNER})
    assert found["image_retrieval_recall@1"] == found["text_retrieval_recall@1"] == 0.0


def test_measures_tell_the_directions_apart_and_the_constant_finds_nothing():
    golds = [{"direction": "text_to_image", "gallery": 12}] * 2 + [{"direction": "image_to_text", "gallery": 60}] * 2
    found = figures("retrieval", scored("retrieval", ["0", "4", "9", "11"], golds))
    assert found == {
        "R@1": 0.25, "image_to_text R@1": 0, "image_to_text R@5": 0, "image_to_text R@10": 0.5,
        "text_to_image R@1": 0.5, "text_to_image R@5": 1, "text_to_image R@10": 1,
    }  # fmt: skip
    said = scorer("retrieval").constants(golds)["one vector"]
    assert set(figures("retrieval", scored("retrieval", said, golds)).values()) == {0.0}


def test_guessing_finds_its_share_exactly():
    """Of galleries of 4, one text in each; of three pictures with two of six captions each, a third."""
    golds = [{"direction": "text_to_image", "gallery": 4, "right": [place]} for _ in range(3) for place in range(4)]
    golds += [{"direction": "image_to_text", "gallery": 6, "right": [2 * n, 2 * n + 1]} for n in range(3)]
    said = scorer("retrieval").constants(golds)["guessing"]
    found = figures("retrieval", scored("retrieval", said, golds))
    assert found["text_to_image R@1"] == 1 / 4
    assert found["image_to_text R@1"] == pytest.approx(1 / 3)
    assert found["text_to_image R@5"] == 1.0


def test_a_query_without_a_prediction_is_unparsable_and_stands_behind_all_others():
    (row,) = scored("retrieval", [""], [{"direction": "text_to_image", "gallery": 3}])
    assert (row.score, row.unparsable, row.parsed) == (0.0, True, None)
    assert figures("retrieval", [row])["text_to_image R@10"] == 0.0


@pytest.mark.parametrize(
    ("matrix", "owner"),
    [
        (np.full((2, 2), np.nan), [0, 1]),
        (np.ones((2, 2)), [0, 0]),
        (np.ones((2, 2)), [0, 2]),
        (np.ones((3, 2)), [0, 1]),
        (np.ones(4), [0, 1]),
    ],
)
def test_a_matrix_that_cannot_be_ranked_is_refused(matrix, owner):
    with pytest.raises(InputError, match="retrieval"):
        ranks(matrix, owner)


def test_a_prediction_that_is_no_rank_is_refused():
    with pytest.raises(InputError, match="no rank"):
        scored("retrieval", ["first"], [{"direction": "text_to_image", "gallery": 3}])


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_recall_grows_with_k_and_ends_at_one(images, texts, seed):
    scores = np.random.default_rng(seed).normal(size=(images * texts, images))
    found = score_answer(
        "retrieval", scores.tolist(), {"text_to_image_index": np.repeat(range(images), texts).tolist()}
    )
    for name in ("image_retrieval_recall", "text_retrieval_recall", "text_true_recall"):
        values = [value for key, value in found.items() if key.startswith(f"{name}@")]
        assert values == sorted(values)
        assert all(0 <= value <= 1 for value in values)
