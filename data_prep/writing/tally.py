"""Counts of one split while it is written, and what the manifest makes of them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.work import Kept

SIDES = (64, 128, 224, 336, 448, 672, 1024, 1536)  # longer side, pixels, upper edges
ASPECTS = (1.1, 1.5, 2.0, 3.0, 5.0, 10.0)  # longer over shorter side, upper edges
SECONDS = (2, 5, 10, 30, 60, 180, 600, 3600)  # of a clip, upper edges
FRAMES = (2, 4, 8, 16, 32, 64)  # that are stored of it, upper edges
RATES = (10, 15, 24, 25, 30, 60)  # frames a second of its source, upper edges
COUNTERS = (
    "skipped", "repaired", "licenses", "kinds", "turns", "media_of_sample", "longer_side", "aspect", "mode", "format",
    "asked", "answered", "difference", "overlap", "declared_faults", "clip_seconds", "clip_frames", "clip_rate",
)  # fmt: skip


class Tally:
    """rows_in: of the source.   merged: rows that joined another's sample.   cut: samples gained by cutting rows.

    media: stored.

    Everything is a sum, so its size does not grow with the rows. `state` is plain JSON for a journal.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self.rows_in: int = state.get("rows_in", 0)
        self.merged: int = state.get("merged", 0)
        self.cut: int = state.get("cut", 0)
        self.media: int = state.get("media", 0)
        self.image_twins: int = state.get("image_twins", 0)
        self.text_twins: int = state.get("text_twins", 0)
        self.both_twins: int = state.get("both_twins", 0)
        self.contradictions: int = state.get("contradictions", 0)
        self.changed: int = state.get("changed", 0)
        self.compared: int = state.get("compared", 0)
        self.several_captions: bool = state.get("several_captions", False)
        self.of: dict[str, Counter[str]] = {name: Counter(state.get("of", {}).get(name)) for name in COUNTERS}

    def state(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "of"} | {
            "of": {name: dict(counts) for name, counts in self.of.items()}
        }

    @property
    def samples(self) -> int:
        return self.of["kinds"].total()

    def keep(self, kept: Kept) -> None:
        """A row that became a sample."""
        record, of = kept.record, self.of
        self.rows_in += kept.merged + (not kept.is_piece)
        self.cut += kept.is_piece
        self.merged += kept.merged
        self.media += len(record.media)
        of["repaired"].update(kept.repaired)
        of["licenses"][record.license] += 1
        of["kinds"][record.kind] += 1
        of["declared_faults"].update((record.meta or {}).get("declared_faults", ()))
        turns = 2 if record.messages is None else len(record.messages) + len(record.chosen or ())
        of["turns"][str(turns)] += 1
        of["media_of_sample"][str(len(record.media))] += 1
        asked, answered, rejected = kept.tokens
        of["asked"][str(asked)] += 1
        of["answered"][str(answered)] += 1
        if record.rejected is not None:
            of["difference"][str(answered - rejected)] += 1
            self._compare((record.meta or {}).get("diff_chosen"), "".join(turn.text for turn in record.chosen or ()))
        self.several_captions |= bool((record.meta or {}).get("captions"))
        for medium, (mode, form) in zip(record.media, kept.sources, strict=True):
            short, long = sorted((medium.w, medium.h))
            of["longer_side"][_bin(long, SIDES)] += 1
            of["aspect"][_bin(long / short, ASPECTS)] += 1
            of["mode"][mode] += 1
            of["format"][form] += 1
            if medium.t is not None:
                of["clip_seconds"][_bin(medium.t[-1], SECONDS)] += 1
                of["clip_frames"][_bin(medium.frames, FRAMES)] += 1
                of["clip_rate"]["unknown" if medium.fps is None else _bin(medium.fps, RATES)] += 1

    def _compare(self, changed: Sequence[Sequence[int]] | None, chosen: str) -> None:
        if changed is not None:
            self.changed += sum(end - begin for begin, end in changed)
            self.compared += len(chosen)

    def skip(self, reason: str, rows: int, is_piece: bool = False) -> None:
        self.rows_in += rows - is_piece
        self.cut += is_piece
        self.of["skipped"][reason] += rows

    def sorted(self, name: str) -> dict[str, int]:
        """One counter, by name."""
        return dict(sorted(self.of[name].items()))

    def by_number(self, name: str) -> dict[str, int]:
        """One counter whose names are numbers, by number."""
        return {key: self.of[name][key] for key in sorted(self.of[name], key=int)}

    def lengths(self, name: str) -> dict[str, Any]:
        """Of a counter of text lengths: counts in powers of two (upper edges), percentiles and maximum."""
        counts = Counter({int(length): count for length, count in self.of[name].items()})
        powers: Counter[int] = Counter()
        for length, count in counts.items():
            powers[1 << max(0, length - 1).bit_length()] += count
        return {
            "counts": {f"<={edge}": powers[edge] for edge in sorted(powers)},
            **{f"p{percent}": _percentile(counts, percent) for percent in (50, 95, 99)},
            "max": max(counts, default=0),
        }

    def differences(self) -> dict[str, Any]:
        """Of preference pairs: how much longer the chosen answer is, and the share of its characters that was changed,
        where the set tells. Empty for other kinds.
        """
        counts = Counter({int(length): count for length, count in self.of["difference"].items()})
        if not counts:
            return {}
        total = counts.total()
        bins: Counter[str] = Counter()
        for value, count in counts.items():
            bins[("-" if value < 0 else "") + f"<={1 << max(0, abs(value) - 1).bit_length()}" if value else "0"] += (
                count
            )
        return {
            "chosen_minus_rejected": dict(sorted(bins.items())),
            "mean": round(sum(value * count for value, count in counts.items()) / total, 4),
            "share_equal": round(counts[0] / total, 4),
            "share_changed": round(self.changed / self.compared, 4) if self.compared else None,
        }


def _percentile(counts: Counter[int], percent: int) -> int:
    """The smallest length that so many percent of the rows do not exceed."""
    wanted, seen = percent / 100 * counts.total(), 0
    for length in sorted(counts):
        seen += counts[length]
        if seen >= wanted:
            return length
    return 0


def _bin(value: float, edges: tuple[float, ...]) -> str:
    place = bisect_left(edges, value)
    return "more" if place == len(edges) else f"<={edges[place]:g}"
