"""The vision transformer's own way through its blocks, against PyTorch's."""

from __future__ import annotations

import torch
from torch import nn

from vlm.models.encoders.vit import Block


def test_a_block_gives_the_numbers_and_gradients_of_pytorchs_layer_of_the_same_weights():
    torch.manual_seed(0)
    wanted = nn.TransformerEncoderLayer(
        24, 3, 40, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    ours = Block(24, 3, 40).double()
    ours.load_state_dict(wanted.state_dict())
    tokens = torch.randn(2, 5, 24, dtype=torch.float64)
    pull = torch.randn_like(tokens)
    gradients = []
    for block in (wanted, ours):
        given = tokens.clone().requires_grad_()
        seen = block(given)
        seen = seen if isinstance(seen, torch.Tensor) else seen[0]
        seen.backward(pull)
        gradients.append([seen, given.grad, *(parameter.grad for parameter in block.parameters())])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-12, atol=1e-12)
