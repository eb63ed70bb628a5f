"""DINOv2: a vision transformer that also answers queries which pass through all of its layers."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.contracts.errors import Mismatch
from vlm.contracts.ranges import PositiveFloat, PositiveInt
from vlm.contracts.vision import EncoderOutput, FixedCount, ViewSpec, VisionSpec
from vlm.models.encoders.dinov2_folder import read_folder
from vlm.models.encoders.reading import Seen, encoded


class DINOv2(nn.Module):
    """views [N, 3, H, W] -> the patches after the last norm, [N, (H/patch) * (W/patch), width], row-major.

    pooled [N, width]: the class token.   state: keys and values of every layer, of class token and patches.
    read: queries pass through all layers, each attending to that layer's keys; the patches never see them.
    grid: patches a side that the table of positions was trained for; it is interpolated for views of another size.
    scale: first value of the factors behind each branch.
    path: a folder in Hugging Face's form, relative to the working directory, from which `load_pretrained` fills the
    weights; null for random ones.
    Source: Oquab et al. 2024 and the release's layout; reading by a query is the nanoSmol project's (fVLM).
    """

    spare = ("mask",)

    def __init__(
        self,
        views: ViewSpec,
        patch: PositiveInt,
        width: PositiveInt,
        layers: PositiveInt,
        heads: PositiveInt,
        mlp: PositiveInt,
        grid: Annotated[int, Ge(1)],
        scale: PositiveFloat,
        path: str | None = None,
    ) -> None:
        super().__init__()
        self.spec = self.describe(views, patch, width, layers, heads, mlp, grid, scale, path)
        self.patch, self.grid, self.path = patch, grid, path
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.mask = nn.Parameter(torch.zeros(1, width))  # of the release's own training; nothing here reads it
        self.positions = nn.Parameter(torch.empty(1, grid**2 + 1, width))
        self.patches = nn.Conv2d(views.channels, width, kernel_size=patch, stride=patch)
        self.blocks = nn.ModuleList(Block(width, heads, mlp, scale) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for table in (self.cls, self.positions):
            nn.init.trunc_normal_(table, std=0.02)

    @staticmethod
    def describe(
        views: ViewSpec,
        patch: int,
        width: int,
        layers: int,
        heads: int,
        mlp: int,
        grid: int,
        scale: float,
        path: str | None,
    ) -> VisionSpec:
        if width % heads:
            raise Mismatch("heads", f"{heads} heads do not divide width {width}")
        if views.height % patch or views.width % patch:
            raise Mismatch("patch", f"{patch} does not divide views of {views.height} x {views.width} pixels")
        tokens = (views.height // patch) * (views.width // patch)
        return VisionSpec(width=width, count=FixedCount(tokens), query_width=width)

    def load_pretrained(self) -> None:
        """Fill the weights from `path`, if there is one; dtype stays.

        Raises: InputError for a folder that cannot be read, and for tensors that are missing or of another shape.
        """
        if self.path is not None:
            self.load_state_dict(read_folder(self.path, {name: p.shape for name, p in self.state_dict().items()}))

    def forward(self, views: Tensor, token_budget: int | None = None) -> EncoderOutput:
        return encoded(self.embedded(views), self.blocks, self.norm, front=1)

    def embedded(self, views: Tensor) -> Tensor:
        """[N, 1 + patches, width]: what the first layer takes."""
        maps = self.patches(views)
        table = self._positions(*maps.shape[2:])
        patches = maps.flatten(2).transpose(1, 2) + table[:, 1:]
        return torch.cat([(self.cls + table[:, :1]).expand(len(views), -1, -1), patches], 1)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """[1, 1 + rows * columns, width], in float32 or better while it is interpolated."""
        if rows == columns == self.grid:
            return self.positions
        first, table = self.positions[:, :1], self.positions[:, 1:]
        maps = table.unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        exact = maps.to(torch.promote_types(maps.dtype, torch.float32))
        resized = F.interpolate(exact, size=(rows, columns), mode="bicubic", align_corners=False).to(table.dtype)
        return torch.cat([first, resized.permute(0, 2, 3, 1).flatten(1, 2)], 1)


class Block(nn.Module):
    """Pre-norm attention and a GELU layer, each branch scaled by channel; [N, T, D] -> the same, and keys and values.

    seen: keys and values that the states attend to in place of their own.
    """

    def __init__(self, width: int, heads: int, mlp: int, scale: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.scale1 = nn.Parameter(torch.full((width,), scale))
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.grow = nn.Linear(width, mlp)
        self.shrink = nn.Linear(mlp, width)
        self.scale2 = nn.Parameter(torch.full((width,), scale))

    def forward(self, states: Tensor, seen: Seen | None = None) -> tuple[Tensor, Seen]:
        normed = self.norm1(states)
        keys, values = (self._split(self.k(normed)), self._split(self.v(normed))) if seen is None else seen
        found = F.scaled_dot_product_attention(self._split(self.q(normed)), keys, values)
        states = states + self.scale1 * self.out(found.transpose(1, 2).flatten(2))
        return states + self.scale2 * self.shrink(F.gelu(self.grow(self.norm2(states)))), (keys, values)

    def _split(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)
