"""Short medical answers made comparable: case, punctuation and brackets, and the words for yes and no."""

from __future__ import annotations

from string import punctuation

FULL_WIDTH = {chr(ord(mark) + 0xFEE0) for mark in punctuation} - {"\uff0e"}  # without its full stop
MARKS = str.maketrans(dict.fromkeys({*punctuation, *FULL_WIDTH, *"。｡、《》【】"}, " "))
BRACKETS = ("()", "\uff08\uff09")  # plain and full-width
YES = {"yes", "yeah", "yep", "true", "是", "是的", "有", "包含", "可以", "能", "会", "正常"}
NO = {"no", "nope", "false", "否", "不是", "没有", "无", "不包含", "不能", "不会", "不可以", "不正常", "异常"}


def fold(text: str) -> str:
    """Lower case, without what stands in round brackets, punctuation as blanks, "x ray" as "xray".

    Source: lmms-eval, tasks/slake.
    """
    text = text.strip().lower()
    for begin, end in BRACKETS:
        text = _without(text, begin, end)
    text = " ".join(text.translate(MARKS).split())
    return "xray" if text == "x ray" else text


def fold_yes_no(text: str) -> str:
    """English and Chinese words for yes and no as "yes" and "no"; any other folded text as it is."""
    return "yes" if text in YES else "no" if text in NO else text


def _without(text: str, begin: str, end: str) -> str:
    """Each part from an opening bracket to the next closing one as a blank; one that is never closed stays."""
    parts, place = [], 0
    while (first := text.find(begin, place)) >= 0 and (last := text.find(end, first)) >= 0:
        parts += [text[place:first], " "]
        place = last + 1
    return "".join([*parts, text[place:]])
