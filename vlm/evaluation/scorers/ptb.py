"""Words of a caption as the public caption scorers count them: Penn Treebank tokens in lower case, no punctuation.

Those scorers run Stanford CoreNLP 3.4.1 in Java. The rules here are our own: they were written from its observed
behaviour alone, by giving it words and captions and noting what came back. They agree on plain English; what differs
is exotic: four words joined by slashes, ISO dates, `C++`, a full stop before a comma, most smileys and HTML entities,
rare symbols and scripts. And a caption stands alone here, while there the next line may decide whether a last single
letter keeps its full stop.
Source: the tokens of pycocoevalcap's PTBTokenizer (observed).
"""

from __future__ import annotations

import re
from functools import lru_cache

from vlm.evaluation.scorers.ptb_rules import TOKENS, WRITTEN

INVISIBLE = re.compile("[^\0-\uffff]")  # emoji and the like; they part words
HARD_BLANK = "\u00a0"  # stands for a blank inside a token, as in "1 1/2"


@lru_cache(maxsize=1 << 16)
def tokenize(caption: str) -> str:
    """The words of a caption in lower case, one blank between them."""
    text = INVISIBLE.sub(" ", caption).replace("&amp;", "&").replace("&quot;", '"')
    return " ".join(_written(match).lower() for match in TOKENS.finditer(text))


def _written(match: re.Match[str]) -> str:
    """How a token is counted."""
    token = match[0]
    if match.lastgroup == "clitic":
        return token.replace("\u2019", "'")
    if token.isascii() and token.isalnum():
        return token
    for symbol, written in WRITTEN.items():
        token = token.replace(symbol, written)
    return token.replace(" ", HARD_BLANK)
