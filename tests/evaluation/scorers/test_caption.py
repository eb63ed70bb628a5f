"""Captions: the words as the public tokenizer sees them, and figures that images can be resampled in."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.scorers.rows import figures, scored
from vlm.contracts.errors import InputError
from vlm.evaluation.score import score_answer, scorer
from vlm.evaluation.scorers.ptb import tokenize

GOLDS = [
    ["A dog runs on the beach.", "a brown dog is running"],
    ["Two men play guitar on a stage.", "two musicians on a stage"],
    ["A child jumps into the water.", "the kid jumps in a pool"],
]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man can't swim.", "a man ca n't swim"),
        ("She's 5 years old, isn\u2019t she?", "she 's 5 years old is n't she"),
        ("a black-and-white T-shirt", "a black-and-white t-shirt"),
        ("Mr. Smith of the U.S. at 9:30am", "mr. smith of the u.s. at 9:30 am"),
        ("the end of no. 5", "the end of no. 5"),
        ("no.", "no"),
        ("gonna gotta cannot", "gon na got ta can not"),
        ("the dogs' 'quoted' \u201cwords\u201d", "the dogs quoted words"),
        ("50% of $5.00", "50 % of $ 5.00"),
        ("(left) [right] {both}", "-lrb- left -rrb- -lsb- right -rsb- -lcb- both -rcb-"),
        ("a dog 😀 runs ❤", "a dog runs ❤"),
        ("rock 'n' roll in the '90s", "rock 'n' roll in the '90s"),
        ("see http://a.com/b, www.foo.com and a@b.com", "see http://a.com/b www.foo.com and a@b.com"),
        ("wow!!! what?! why?", "wow !!! what ?! why"),
        ("red/blue w/ O'Neil's", "red/blue w / o'neil 's"),
        ("日本の犬 для café", "日本の犬 для café"),
        ("one -- two \u2013 three \u2014 four - five", "one two three four five"),
        ("line\nfeed\ttab", "line feed tab"),
        ("\ud800 a lone surrogate", "a lone surrogate"),
        ("hors d'oeuvres for ma'am at 5 o'clock in O'Hare", "hors d'oeuvres for ma'am at 5 o'clock in o'hare"),
        ("mac'n'cheese, y'all'd've said", "mac 'n' cheese y' all 'd 've said"),
        ("a 5'10\" man lifts 1 1/2 tons", "a 5 10 man lifts 1\xa01/2 tons"),
        ("plan B. The dog, plan B. Dogs", "plan b the dog plan b. dogs"),
        ("a U.S.-built 2.5-inch H&M-branded photo.png", "a u.s.-built 2.5-inch h&m branded photo.png"),
        ("a dog:) call (212) 555-1234", "a dog :-rrb- call -lrb-212-rrb-\xa0555-1234"),
        ("", ""),
    ],
)
def test_words_are_those_of_the_public_tokenizer(caption, words):
    """Each line as Stanford CoreNLP 3.4.1 gave it."""
    assert tokenize(caption) == words


def test_a_copy_of_a_reference_has_the_best_scores():
    found = figures("caption", scored("caption", [texts[0] for texts in GOLDS], GOLDS))
    assert found["BLEU-1"] == pytest.approx(1, abs=1e-9)
    assert found["BLEU-4"] == pytest.approx(1, abs=1e-9)
    assert found["ROUGE-L"] == 1.0
    single = [[texts[0]] for texts in GOLDS]
    assert figures("caption", scored("caption", [texts[0] for texts in GOLDS], single))["CIDEr"] == pytest.approx(10)


def test_measures_are_the_public_figures():
    said = ["a dog on the beach", "two men", "a child in a pool"]
    public = score_answer("caption", said, GOLDS, "ptb-scores")
    found = figures("caption", scored("caption", said, GOLDS))
    names = {"CIDEr": "cider", "ROUGE-L": "rouge_l", **{f"BLEU-{size}": f"bleu_{size}" for size in range(1, 5)}}
    assert found == pytest.approx({name: public[key] for name, key in names.items()})


def test_a_resampled_image_keeps_how_rare_its_words_are_in_the_full_set():
    said = ["a dog on the beach", "two men", "a child in a pool"]
    measures = {measure.name: measure for measure in scorer("caption").measures(scored("caption", said, GOLDS))}
    per_image = score_answer("caption", said, GOLDS, "ptb-scores")["cider_per_image"]
    drawn = np.array([2, 0, 1])  # the first image twice, the last one once
    assert measures["CIDEr"].combine(drawn @ measures["CIDEr"].columns) == pytest.approx(
        (2 * per_image[0] + per_image[2]) / 3
    )
    corpus = score_answer("caption", [said[0], said[0], said[2]], [GOLDS[0], GOLDS[0], GOLDS[2]], "ptb-scores")
    assert measures["BLEU-2"].combine(drawn @ measures["BLEU-2"].columns) == pytest.approx(corpus["bleu_2"])
    assert measures["BLEU-4"].combine(np.zeros((5, 10))).shape == (5,)


def test_the_constant_caption_is_one_of_the_gold_captions_and_scores_little():
    constants = scorer("caption").constants(GOLDS)
    assert constants["one caption"][0] in [text for texts in GOLDS for text in texts]
    found = {name: figures("caption", scored("caption", said, GOLDS))["CIDEr"] for name, said in constants.items()}
    assert 0 < found["one caption"] < 5
    assert found["empty"] == 0


def test_a_caption_without_a_word_is_unparsable_and_scores_nothing():
    rows = scored("caption", [" . , !", "", "a dog"], GOLDS)
    assert [row.unparsable for row in rows] == [True, True, False]
    assert [row.score for row in rows][:2] == [0.0, 0.0]


def test_cider_of_one_image_is_zero():
    """log(1) = 0: nothing is rare in a set of one."""
    assert score_answer("caption", ["a dog"], [["a dog"]], "ptb-scores")["cider"] == 0.0


@pytest.mark.parametrize("wrong", [[], None, [3], {"captions": []}])
def test_gold_data_without_captions_is_refused(wrong):
    with pytest.raises(InputError, match="gold captions"):
        scored("caption", ["a dog"], [wrong])


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.text(max_size=80))
def test_any_text_is_tokenized_and_only_once_in_lower_case(text):
    words = tokenize(text)
    assert "\n" not in words
    assert not words.startswith(" ")
    assert all(word for word in words.split(" ")) or not words


@pytest.mark.parametrize(
    "part",
    [
        "a ",
        "x",
        "9",
        "(",
        "a.",
        "A.a-",
        "a'",
        "<a ",
        "a@",
        "-",
        "1/",
        "12 345-",
        "www.",
        "\u2018\u201c",
        "é",
        "n't",
        "a.-",
    ],
)
def test_an_endless_caption_is_scored_in_seconds(part):
    start = time.perf_counter()
    score_answer("caption", [part * (100_000 // len(part)), "a dog"], GOLDS[:2], "ptb-scores")
    assert time.perf_counter() - start < 20
