"""What a user would write instead: the captioner of SupraVL-Nano's sizes in plain PyTorch, one file, no framework."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

VISUAL, TEXT, VOCABULARY, WIDTH, HEADS, MLP, LAYERS = 16, 48, 2048, 128, 4, 256, 3
SIZE, MEAN, STD = 112, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PAD = -100


class PlainBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, MLP), nn.GELU(), nn.Linear(MLP, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.mlp(self.norm2(x))


class PlainCaptioner(nn.Module):
    """images [B, 3, 112, 112], ids [B, L] -> logits [B, 16 + L, V]: the head runs everywhere, nothing is cached."""

    def __init__(self) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for before, after in ((3, 16), (16, 32), (32, 64)):
            stages += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        self.vision = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(4))
        self.project = nn.Linear(64, WIDTH)
        self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(VISUAL + TEXT, WIDTH)
        self.blocks = nn.ModuleList(PlainBlock() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, images: Tensor, ids: Tensor) -> Tensor:
        visual = self.project(self.vision(images).flatten(2).transpose(1, 2))
        x = torch.cat([visual, self.tokens(ids)], dim=1)
        x = x + self.positions(torch.arange(x.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.tokens.weight.T


class PlainPictures(Dataset):
    """(view [3, 112, 112], ids) of a picture's bytes and its caption's ids, decoded at every visit."""

    def __init__(self, pictures: Sequence[bytes], ids: Sequence[Tensor]) -> None:
        self.pictures, self.ids = pictures, ids
        self.mean, self.std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        picture = Image.open(BytesIO(self.pictures[row])).convert("RGB")
        small = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        view = torch.from_numpy(np.array(small)).permute(2, 0, 1).float().div(255)
        return (view - self.mean) / self.std, self.ids[row]


def plain_collate(rows: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    views, ids = zip(*rows, strict=True)
    return torch.stack(views), pad_sequence(list(ids), batch_first=True, padding_value=PAD)


def plain_step(model: PlainCaptioner, optimizer: torch.optim.Optimizer, images: Tensor, ids: Tensor) -> None:
    logits = model(images, ids.clamp_min(0))[:, VISUAL:-1]
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


@torch.no_grad()
def plain_beam(model: PlainCaptioner, image: Tensor, begin: int, end: int, width: int, longest: int) -> list[int]:
    """Beam search that runs the whole row again for every token."""
    beams: list[tuple[float, list[int]]] = [(0.0, [begin])]
    for _ in range(longest):
        grown: list[tuple[float, list[int]]] = []
        for score, ids in beams:
            if ids[-1] == end:
                grown.append((score, ids))
                continue
            logp = model(image, torch.tensor([ids]))[0, -1].log_softmax(-1)
            values, tokens = logp.topk(width)
            grown += [(score + float(v), [*ids, int(t)]) for v, t in zip(values, tokens, strict=True)]
        beams = sorted(grown, reverse=True)[:width]
    return beams[0][1]
