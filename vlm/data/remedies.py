"""What to do about rows that cannot be used, by the reasons that they were left out for."""

from __future__ import annotations

from collections.abc import Collection, Iterator

LONG = "text_long"
PAIRS = ("pair_missing", "pair_equal")


def remedies(reasons: Collection[str], overflow: str, reader: str) -> str:
    """reasons: names of the data rules.   overflow: the run's data.overflow.   reader: the node that reads text."""
    return "; ".join(_each(set(reasons), overflow, reader))


def _each(reasons: set[str], overflow: str, reader: str) -> Iterator[str]:
    if LONG in reasons and overflow == "skip":
        yield f"text_long: raise {reader}.template.max_tokens, or shorten such texts with data.overflow=cut"
    elif LONG in reasons:
        yield f"text_long: raise {reader}.template.max_tokens, as what stands before these answers fills it"
    if "media_many" in reasons:
        message = "media_many: fewer visual tokens or pictures a row, or a model that reads more positions"
        yield message if reader == "llm" else "media_many: a pair is one picture and one caption; leave such rows out"
    if "media_unexpected" in reasons:
        yield "media_unexpected: choose an encoder, or data without pictures"
    if reasons.intersection(PAIRS):
        yield f"{', '.join(sorted(reasons.intersection(PAIRS)))}: leave such rows out of the set, or choose a set of pairs"
    if others := sorted(reasons.difference((LONG, "media_many", "media_unexpected", *PAIRS))):
        yield f"{', '.join(others)}: mend the source and prepare the set again, or copy it again if files are damaged"
