"""How the samples of one optimizer step are laid out as micro-batches: a pure function of what the index says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vlm.contracts.errors import InputError


@dataclass(frozen=True)
class Cost:
    """What a sample asks for, by the index and before it is read. tokens: visual and text.   views: encoder inputs."""

    tokens: int
    views: int


@dataclass(frozen=True)
class Planner:
    """Step s covers positions [s * global_batch, (s + 1) * global_batch), whatever the hardware.

    micro_batch: most samples of a micro-batch; without micro_tokens every one has exactly so many.
    micro_tokens: most tokens of a micro-batch by the index's estimate; a longer sample stands alone.
    world: processes that share a step; each gets the same number of micro-batches.
    cost: position -> Cost, None if the index of a source does not tell.
    """

    global_batch: int
    micro_batch: int
    world: int = 1
    micro_tokens: int | None = None
    cost: Callable[[int], Cost | None] | None = None

    def __call__(self, step: int) -> list[list[int]]:
        """Micro-batches as positions. Number i is worked off by rank i % world; loads of one turn are alike."""
        positions = range(step * self.global_batch, (step + 1) * self.global_batch)
        count = self.global_batch // self.micro_batch
        costs = (
            [self.cost(position) for position in positions] if self.cost and (count > 1 or self.micro_tokens) else []
        )
        known = [cost for cost in costs if cost is not None]
        if len(known) < self.global_batch:
            begins = range(0, self.global_batch, self.micro_batch)
            return [list(positions[begin : begin + self.micro_batch]) for begin in begins]
        weights = _weights(known)
        spread = self._within_budget(known, weights) if self.micro_tokens else _spread(weights, count, self.micro_batch)
        return [[positions[item] for item in part] for part in spread]

    def _within_budget(self, costs: Sequence[Cost], weights: Sequence[tuple[float, float]]) -> list[list[int]]:
        assert self.micro_tokens is not None
        least = -(-sum(cost.tokens for cost in costs) // self.micro_tokens)
        least = max(least, -(-len(costs) // self.micro_batch), 1)
        for turns in range(-(-least // self.world), len(costs) // self.world + 1):
            parts = _spread(weights, turns * self.world, self.micro_batch)
            loads = [sum(costs[item].tokens for item in part) for part in parts]
            if all(load <= self.micro_tokens or len(part) == 1 for load, part in zip(loads, parts, strict=True)):
                return parts
        # As many micro-batches as the ranks can share evenly; what is over the budget stands alone as far as possible.
        return _spread(weights, len(costs) // self.world * self.world, self.micro_batch)


def _weights(costs: Sequence[Cost]) -> list[tuple[float, float]]:
    """Shares of all tokens and of all views: text loads the language model, views load the encoder."""
    tokens = max(1, sum(cost.tokens for cost in costs))
    views = max(1, sum(cost.views for cost in costs))
    return [(cost.tokens / tokens, cost.views / views) for cost in costs]


def _spread(weights: Sequence[tuple[float, float]], count: int, most: int) -> list[list[int]]:
    """Items to `count` parts of at most `most` items and of similar tokens and views, the heaviest first, none empty.

    Longest processing time first (Graham 1969), for two loads: the next heaviest item goes to the part with room whose
    larger load is the smallest with it.
    """
    parts: list[list[int]] = [[] for _ in range(count)]
    loads = [(0.0, 0.0)] * count
    for item in sorted(range(len(weights)), key=lambda item: (-sum(weights[item]), item)):
        after = {
            number: (loads[number][0] + weights[item][0], loads[number][1] + weights[item][1])
            for number in range(count)
            if len(parts[number]) < most
        }
        best = min(after, key=lambda number: (max(after[number]), sum(after[number]), number))
        parts[best].append(item)
        loads[best] = after[best]
    order = sorted(range(count), key=lambda number: (-sum(loads[number]), number))
    return [sorted(parts[number]) for number in order]


def batches_once(rows: int, batch: int, rank: int, world: int) -> list[list[int]]:
    """Rows 0 .. rows-1 in batches, the last one shorter; rank r takes batches r, r + world, ...

    Every rank gets the same number, so that all make the same calls; where one has none left, it repeats the last.
    """
    batches = [list(range(begin, min(begin + batch, rows))) for begin in range(0, rows, batch)]
    turns = -(-len(batches) // world)
    return [batches[min(turn * world + rank, len(batches) - 1)] for turn in range(turns)]


def micro_batch_of(global_batch: int, micro_batch: int | None, world: int) -> int:
    """Samples of a micro-batch; None = this rank's whole share of a step.

    Raises: InputError if the step cannot be divided so.
    """
    share = (micro_batch or 1) * world
    if global_batch % share:
        alone = f"hardware.micro_batch ({micro_batch})"
        by = alone if world == 1 else f"{share} ({world} processes" + (f" of {alone})" if micro_batch else ")")
        raise InputError(
            f"{global_batch} is not a multiple of {by}; choose {_dividing(global_batch, micro_batch, world)}"
        )
    return micro_batch or global_batch // world


def _dividing(global_batch: int, micro_batch: int | None, world: int) -> str:
    """The nearest values that fit, below and above, of either key while the other stays."""
    share = (micro_batch or 1) * world
    below = global_batch // share * share
    steps = [f"{size}" for size in (below, below + share) if size]
    ways = [f"phase.global_batch={' or '.join(steps)}"]
    if micro_batch is not None and global_batch % world == 0:
        divisors = [size for size in range(1, global_batch // world + 1) if global_batch // world % size == 0]
        near = [max(size for size in divisors if size < micro_batch)]
        near += [size for size in divisors if size > micro_batch][:1]
        ways.append(f"hardware.micro_batch={' or '.join(map(str, near))}")
    return ", or ".join(ways)


def steps_from(planner: Planner, start: int, rank: int) -> Iterator[list[list[int]]]:
    """This rank's micro-batches of each step from `start` on, without end."""
    step = start
    while True:
        yield planner(step)[rank :: planner.world]
        step += 1
