"""Polynomial features of a picture: purevlm's bilinear-autoencoder encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlm.contracts.errors import Mismatch
from vlm.contracts.ranges import NonNegativeInt, PositiveInt
from vlm.contracts.vision import EncoderOutput, FixedCount, ViewSpec, VisionSpec

EPSILON = 1e-8  # added to every norm, so that an all-black picture gives zeros and not NaN
INIT_STD, PRODUCT_STD = 0.05, 0.08  # published


class Bilinear(nn.Module):
    """views [N, 1, H, W] grey in 0..1 -> one token of products + degree2 + degree3 channels.

    Three kinds of polynomial features of the unit-norm picture stand side by side: degree 4 (products of
    two bilinear maps of `rank` rows), degree 2 and degree 3; zero of a kind leaves it out.
    aux: "reconstruction", the quadratic form of the degree-2 autoencoder, clipped to 0..10 and averaged over
    views; without gradient if `recon_detach` (as published).
    Source: the purevlm project.
    """

    reports = ("reconstruction",)

    def __init__(
        self,
        views: ViewSpec,
        rank: PositiveInt,
        products: NonNegativeInt,
        degree2: NonNegativeInt,
        degree3: NonNegativeInt,
        recon_detach: bool,
    ) -> None:
        super().__init__()
        self.spec = self.describe(views, rank, products, degree2, degree3, recon_detach)
        self.recon_detach = recon_detach
        pixels = views.height * views.width

        def weight(rows: int, columns: int, std: float = INIT_STD) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns) * std)

        self.has_products, self.has_degree2, self.has_degree3 = products > 0, degree2 > 0, degree3 > 0
        if products:
            self.bae1_l, self.bae1_r = weight(rank, pixels), weight(rank, pixels)
            self.bae2_l, self.bae2_r = weight(rank, pixels), weight(rank, pixels)
            self.tp_proj_a = weight(products, rank, PRODUCT_STD)
            self.tp_proj_b = weight(products, rank, PRODUCT_STD)
        if degree2:
            self.bae_deg2_0, self.bae_deg2_1 = weight(degree2, pixels), weight(degree2, pixels)
        if degree3:
            self.bae_deg3_0, self.bae_deg3_1 = weight(degree3, pixels), weight(degree3, pixels)
            self.bae_deg3_2 = weight(degree3, pixels)

    @staticmethod
    def describe(
        views: ViewSpec, rank: int, products: int, degree2: int, degree3: int, recon_detach: bool
    ) -> VisionSpec:
        if views.channels != 1:
            raise Mismatch("views", f"needs grey views, but the view maker gives {views.channels} channels")
        width = products + degree2 + degree3
        if width == 0:
            raise Mismatch("products", "products, degree2 and degree3 are all 0, so there is no feature left")
        return VisionSpec(width=width, count=FixedCount(1))

    def forward(self, views: Tensor, token_budget: int | None = None) -> EncoderOutput:
        x = _unit(views.flatten(1))
        features, aux = [], {}
        if self.has_products:
            first = _unit((x @ self.bae1_l.T) * (x @ self.bae1_r.T))
            second = _unit((x @ self.bae2_l.T) * (x @ self.bae2_r.T))
            features.append((first @ self.tp_proj_a.T) * (second @ self.tp_proj_b.T))
        if self.has_degree2:
            squares = (x @ self.bae_deg2_0.T) * (x @ self.bae_deg2_1.T)
            features.append(squares)
            aux["reconstruction"] = self._reconstruction(x, squares)
        if self.has_degree3:
            features.append((x @ self.bae_deg3_0.T) * (x @ self.bae_deg3_1.T) * (x @ self.bae_deg3_2.T))
        tokens = _unit(torch.cat(features, dim=-1)).unsqueeze(1)
        return EncoderOutput(tokens=tokens, aux=aux)

    def _reconstruction(self, x: Tensor, squares: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.recon_detach):
            u, a, b = _unit(squares), _unit(self.bae_deg2_0), _unit(self.bae_deg2_1)
            quadratic = ((u @ ((a @ a.T) * (b @ b.T))) * u).sum(-1)
            return (quadratic - 2 * (u * u).sum(-1) + (x * x).sum(-1)).clamp(0, 10).mean()


def _unit(rows: Tensor) -> Tensor:
    return rows / (rows.norm(dim=-1, keepdim=True) + EPSILON)
