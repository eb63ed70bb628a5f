"""MMMU's open questions: every number and every text after a word such as "is" or "answer" may be the answer.

Lenient by design: one right number among several wrong ones is right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
EQUALS = "="  # an indicator in the last line alone
ALONE = {":", ",", ".", "!", "?", ";", "'"}  # what says nothing when nothing else follows an indicator
# Digits never match in part, and a run of digits is entered at its begin alone: a long run stays linear.
NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?(?<!\d)\d++(?:\.\d++)?+[eE][+-]?\d+"),
    re.compile(r"-?(?:(?<!\d)\d++\.\d++|\.\d++|(?<!\d)\d++\b)(?![eE][+-]?\d)(?![,\d])"),
)


def read(answer: str) -> tuple[list[str], list[float]]:
    """Texts and numbers (to two decimals) that the answer may mean, each sorted and once.

    Source: MMMU, eval_utils.parse_open_response. Its split into sentences looks for a capital in text that is
    already lower-case, so only line feeds part an answer.
    """
    said = _key_parts(answer.strip().strip(".").lower())
    found = said + [number for part in said for pattern in NUMBERS for number in pattern.findall(part)]
    normal = {one for part in found for one in normalise(part)}
    texts = sorted(one for one in normal if isinstance(one, str))
    return texts, sorted((one for one in normal if isinstance(one, float)), key=lambda one: (math.isnan(one), one))


def is_right(texts: Sequence[str], numbers: Sequence[float], golds: Sequence[str]) -> bool:
    """Whether a gold text stands in one of the texts, or a gold number is among the numbers."""
    meant = [one for gold in golds for one in normalise(gold)]
    if any(isinstance(one, str) and one in text for one in meant for text in texts):
        return True
    return any(one in numbers for one in meant if isinstance(one, float))


def normalise(text: str) -> list[str] | list[float]:
    """A number to two decimals; else the text in lower case, a single letter with a blank before or after it."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def _key_parts(answer: str) -> list[str]:
    """Of each line the shortest text after an indicator; the whole answer where no line has one."""
    lines = answer.split("\n")
    found = []
    for number, line in enumerate(lines):
        indicators = (*INDICATORS, EQUALS) if number == len(lines) - 1 else INDICATORS
        tails = [line.rpartition(indicator)[2].strip() for indicator in indicators if indicator in line]
        shortest = ""
        for tail in tails:  # an empty tail is shorter than any, and any tail takes its place
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in ALONE:
            found.append(shortest)
    return found or [answer]
