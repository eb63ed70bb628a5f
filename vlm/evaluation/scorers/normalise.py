"""Spelling differences that VQA scorers forgive: case, punctuation, articles, number words, missing apostrophes."""

from __future__ import annotations

import re
from functools import lru_cache

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(NUMBERS)}}
ARTICLES = {"a", "an", "the"}

COMMA_IN_NUMBER = re.compile(r"\d,\d")
STOP = re.compile(r"\.(?!\d)")  # the guard for a digit in front is mistyped in the original and does nothing
STOP_BESIDE_NO_DIGIT = re.compile(r"(?<!\d)\.(?!\d)")
KEPT = 1 << 16  # texts whose form is remembered: answers repeat, and so do their gold data
MOST_STOPS = 32  # the original hands a flag, whose value this is, over as the number of replacements


@lru_cache(KEPT)
def normalise(text: str, keep_stop_after_digit: bool = False) -> str:
    """The text in the form in which VQA answers are compared.

    keep_stop_after_digit: "5." keeps its full stop, as in VLMEvalKit; the official form removes it.
    Source: VQA evaluation code, github.com/GT-Vision-Lab/VQA; VLMEvalKit, vlmeval/dataset/utils/vqa_eval.py.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    words = (DIGITS.get(word, word) for word in without_punctuation(text, keep_stop_after_digit).lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


@lru_cache(KEPT)
def normalise_evalai(text: str) -> str:
    """The form of TextVQA: commas and question marks go first, a possessive stands alone ("nike 's").

    Source: M4C evaluator of TextVQA, as in lmms-eval.
    """
    return normalise(text.lower().replace(",", "").replace("?", "").replace("'s", " 's"))


def without_punctuation(text: str, keep_stop_after_digit: bool = False) -> str:
    """Punctuation marks deleted or turned into blanks, full stops deleted unless a digit follows.

    A mark is deleted where the text has it beside a blank anywhere, and every mark where a comma stands between two
    digits; otherwise it becomes a blank.
    """
    delete_all = COMMA_IN_NUMBER.search(text) is not None
    table = {
        ord(mark): "" if delete_all or f"{mark} " in text or f" {mark}" in text else " "
        for mark in PUNCTUATION
        if mark in text
    }
    stop = STOP_BESIDE_NO_DIGIT if keep_stop_after_digit else STOP
    return stop.sub("", text.translate(table), count=MOST_STOPS)


def _contractions() -> dict[str, str]:
    """Spelling without apostrophe -> with it. Entries with a capital (Im, Ive) never match lower-case text: left out."""
    endings = {
        "n't": "ai are ca could did does do had has have is might must need ought sha should was were wo would",
        "'ve": "could might must not should they we what where who would you",
        "'d": "he how it someone something there they where who you",
        "'ll": "how it somebody someone something they what who why you",
        "'s": "he how somebody someone that there what when where who why",
        "'re": "there they what why you",
    }
    found = {
        stem + ending.replace("'", ""): stem + ending for ending, stems in endings.items() for stem in stems.split()
    }
    for stem in ("could", "had", "might", "should", "would"):
        found |= dict.fromkeys((f"{stem}nt've", f"{stem}n'tve"), f"{stem}n't've")
    for stem in ("he", "it", "she", "somebody", "someone", "something", "there", "they", "we", "who", "you"):
        found |= dict.fromkeys((f"{stem}d've", f"{stem}'dve"), f"{stem}'d've")
    return found | {
        "maam": "ma'am",
        "oclock": "o'clock",
        "twas": "'twas",
        "yall": "y'all",
        **dict.fromkeys(("yall'll", "y'allll"), "y'all'll"),
        **dict.fromkeys(("yall'd've", "y'alld've", "y'all'dve"), "y'all'd've"),
        **dict.fromkeys(("ow's'at", "'ows'at", "'ow'sat"), "'ow's'at"),
        "somebody'd": "somebodyd",  # so in the original
    }


CONTRACTIONS = _contractions()
