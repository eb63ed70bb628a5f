"""How encoders and connectors meet: specs before weights, one record after them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from vlm.contracts.errors import Mismatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ViewSpec:
    """What a view maker hands to an encoder: [channels, height, width], and how many views a medium becomes.

    max_views: of a picture, each another one.   still: how often a picture's views stand in the text.
    frames: most frames that are taken of a clip, each a view; 0 for models that take no clips.
    """

    channels: int
    height: int
    width: int
    max_views: int = 1
    still: int = 1
    frames: int = 0

    @property
    def slots(self) -> int:
        """Most places that one medium takes in the text, in views."""
        return max(self.max_views * self.still, self.frames)


class TokenCount(Protocol):
    """Number of visual tokens of one view, a pure and picklable function of its size and the budget."""

    def __call__(self, height: int, width: int, token_budget: int | None) -> int: ...


@dataclass(frozen=True)
class FixedCount:
    """An encoder that always gives `tokens` tokens a view."""

    tokens: int

    def __call__(self, height: int, width: int, token_budget: int | None) -> int:
        return self.tokens


def refuse_budget(count: TokenCount, views: ViewSpec, token_budget: int | None) -> None:
    """Raises: Mismatch for a budget that an encoder cannot have, with the nearest that it can; None is always one."""
    if token_budget is None:
        return
    if isinstance(count, FixedCount):
        message = f"this encoder gives every picture {count.tokens} tokens; leave it out"
        raise Mismatch("token_budget", message)
    count(views.height, views.width, token_budget)


@dataclass(frozen=True)
class VisionSpec:
    """What an encoder or a connector gives.

    width: channels of a token.   count: tokens of one view.   levels: number of level ids.
    query_width: of an encoder, width of the queries that `EncoderOutput.read` takes; of a connector, of those that a
    fusion may ask it with; None if it cannot be queried.
    """

    width: int
    count: TokenCount
    levels: int = 1
    query_width: int | None = None


@dataclass
class EncoderOutput:
    """What an encoder saw in N views; fields that it does not have are None.

    tokens [N, T, D], mask [N, T], level_ids [N, T], spatial_metadata [N, T, 4] (x, y, w, h in 0..1),
    saliency_scores [N, T], pooled [N, D], state: the encoder's own, for `read`,
    read: queries [N', R, D], views [N'] = None -> [N', R, D], what R queries find in each view, or in those named,
    aux: named scalars that a phase may weigh into its loss.
    """

    tokens: Tensor
    mask: Tensor | None = None
    level_ids: Tensor | None = None
    spatial_metadata: Tensor | None = None
    saliency_scores: Tensor | None = None
    pooled: Tensor | None = None
    state: Any = None
    read: Callable[[Tensor, Tensor | None], Tensor] | None = None
    aux: Mapping[str, Tensor] = field(default_factory=dict)


class Encoder(Protocol):
    """views [N, C, H, W] -> EncoderOutput. `describe` is its shape rule in plain arithmetic, without torch."""

    spec: VisionSpec

    def __call__(self, views: Tensor, token_budget: int | None = None) -> EncoderOutput: ...


class Connector(Protocol):
    """EncoderOutput -> [N, T', W], W the width of the language model."""

    spec: VisionSpec

    def __call__(self, seen: EncoderOutput) -> Tensor: ...
