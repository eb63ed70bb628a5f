"""SupraVL-Nano's published folder: model.safetensors, tokenizer.json, config.json.

Its tensors are recognised by shape and place rather than by name: releases differ in names, and every tensor of this
architecture is told apart by its shape and by its order inside a block.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from vlm.contracts.errors import InputError
from vlm.interop.foreign import Foreign, natural


def read(path: Path) -> Foreign:
    """Raises: InputError naming the file or tensor that is missing, left over or contradictory."""
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        if not (path / name).is_file():
            raise InputError(f"{path / name} is missing; give the published folder with its three files")
    try:
        config = json.loads((path / "config.json").read_text())
        tensors = load_file(path / "model.safetensors")
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    except (ValueError, SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # tokenizers raises plain Exception for a malformed file
        if type(error) is not Exception:
            raise
        raise InputError(f"{path / 'tokenizer.json'} is no tokenizer: {error}") from error
    matched = _Matcher(tensors, path / "model.safetensors")
    found = matched.run()
    begin, end = (_special(tokenizer, config, path, key, default) for key, default in (("bos", 1), ("eos", 2)))
    heads = next((config[key] for key in ("n_heads", "n_head", "num_heads", "heads") if key in config), 4)
    sizes = [
        f"encoder.channels=[{','.join(str(c) for c in matched.channels)}]",
        f"llm.tokenizer.size={found['llm.tok_emb.weight'].shape[0]}",
        f"llm.width={found['llm.tok_emb.weight'].shape[1]}",
        f"llm.max_positions={found['llm.pos_emb.weight'].shape[0]}",
        f"llm.layers={matched.layers}",
        f"llm.heads={heads}",
        f"llm.mlp={found['llm.blocks.0.fc1.weight'].shape[0]}",
        f"llm.template.begin='{begin}'",
        f"llm.template.end='{end}'",
    ]
    return Foreign(
        ["experiment=supravl_nano", *sizes], found, found["llm.tok_emb.weight"].dtype, path / "tokenizer.json"
    )


def _special(tokenizer: Tokenizer, config: dict[str, Any], path: Path, key: str, default: int) -> str:
    number = next((config[name] for name in (f"{key}_token_id", f"{key}_id", key) if name in config), default)
    token = tokenizer.id_to_token(number)
    if token is None:
        raise InputError(f"{path / 'tokenizer.json'} has no token of id {number}, which config.json uses as {key}")
    return token


class _Matcher:
    """Names each tensor of the file once; what is left at the end is an error."""

    def __init__(self, tensors: dict[str, Tensor], source: Path) -> None:
        self.left, self.source = dict(tensors), source
        self.found: dict[str, Tensor] = {}
        self.channels: list[int] = []
        self.layers = 0

    def run(self) -> dict[str, Tensor]:
        self._drop_masks()
        for stage, weight in enumerate(self._named(lambda t: t.ndim == 4)):
            self.channels.append(self.left[weight].shape[0])
            self._linear(weight, f"encoder.stages.{stage}.0")
        for stage, mean in enumerate(name for name in natural(self.left) if name.endswith("running_mean")):
            prefix = mean.removesuffix("running_mean")
            for name in ("weight", "bias", "running_mean", "running_var"):
                self._move(prefix + name, f"encoder.stages.{stage}.1.{name}")
            steps = self.left.pop(prefix + "num_batches_tracked", torch.tensor(0))
            self.found[f"encoder.stages.{stage}.1.num_batches_tracked"] = steps
        width = self._qkv_width()
        projection = self._only("visual projection", lambda t: tuple(t.shape) == (width, self.channels[-1]))
        self._linear(projection, "connector.project")
        self._embeddings(width)
        blocks = self._named(lambda t: tuple(t.shape) == (3 * width, width))
        self.layers = len(blocks)
        for number, qkv in enumerate(blocks):
            self._block(number, qkv, width)
        last = self._only("last LayerNorm", lambda t: t.ndim == 1, suffix=".weight")
        self._linear(last, "llm.ln_f")
        if self.left:
            raise InputError(f"{self.source}: tensors left over: {', '.join(natural(self.left)[:8])}")
        return self.found

    def _drop_masks(self) -> None:
        for name in [n for n, t in self.left.items() if t.ndim >= 2 and t.shape[-1] == t.shape[-2] and _is_mask(t)]:
            del self.left[name]

    def _qkv_width(self) -> int:
        widths = {t.shape[1] for t in self.left.values() if t.ndim == 2 and t.shape[0] == 3 * t.shape[1]}
        if len(widths) != 1:
            raise InputError(f"{self.source}: no single attention width, found {sorted(widths)} in fused qkv weights")
        return widths.pop()

    def _embeddings(self, width: int) -> None:
        tables = [n for n in self._named(lambda t: t.ndim == 2 and t.shape[1] == width) if self._is_table(n)]
        heads = [name for name in tables if "head" in name]
        positions = [name for name in tables if "pos" in name or "wpe" in name]
        tokens = [name for name in tables if name not in heads + positions]
        if len(tokens) != 1 or len(positions) != 1 or len(heads) > 1:
            raise InputError(f"{self.source}: expected one token and one position table, found {', '.join(tables)}")
        self._move(tokens[0], "llm.tok_emb.weight")
        self._move(positions[0], "llm.pos_emb.weight")
        for head in heads:
            if not torch.equal(self.left.pop(head), self.found["llm.tok_emb.weight"]):
                raise InputError(f"{self.source}: {head} differs from the token table, but this model ties them")

    def _is_table(self, name: str) -> bool:
        return not any(word in name for word in ("qkv", "attn", "mlp", "fc", "ff", "blocks", "layers"))

    def _block(self, number: int, qkv: str, width: int) -> None:
        before = natural([n for n in self.left if n.endswith("qkv.weight") or n == qkv])
        assert qkv in before
        digits = [i for i, piece in enumerate(qkv.split(".")) if piece.isdigit()]
        prefix = ".".join(qkv.split(".")[: digits[0] + 1]) + "."
        inside = {n: t for n, t in self.left.items() if n.startswith(prefix)}
        ours = f"llm.blocks.{number}"

        def weight(what: str, rows: int | None, columns: int | None) -> str:
            fitting = [
                n
                for n, t in inside.items()
                if t.ndim == 2
                and rows in (None, t.shape[0])
                and columns in (None, t.shape[1])
                and n != qkv
                and n in self.left
            ]
            if len(fitting) != 1:
                raise InputError(f"{self.source}: {prefix}: expected one {what} weight, found {fitting or 'none'}")
            return fitting[0]

        self._move(qkv, f"{ours}.qkv.weight")
        self._linear(weight("attention output", width, width), f"{ours}.out")
        self._linear(weight("second MLP", width, None), f"{ours}.fc2")
        self._linear(weight("first MLP", None, width), f"{ours}.fc1")
        norms = natural([n for n in inside if n in self.left and n.endswith(".weight") and inside[n].ndim == 1])
        if len(norms) != 2:
            raise InputError(f"{self.source}: {prefix}: expected two LayerNorms, found {norms or 'none'}")
        for name, norm in zip(("ln1", "ln2"), norms, strict=True):
            self._linear(norm, f"{ours}.{name}")

    def _named(self, fits: Any) -> list[str]:
        return [name for name in natural(self.left) if fits(self.left[name])]

    def _only(self, what: str, fits: Any, suffix: str = "") -> str:
        names = [name for name in self._named(fits) if name.endswith(suffix)]
        if len(names) != 1:
            raise InputError(f"{self.source}: expected one {what}, found {', '.join(names) or 'none'}")
        return names[0]

    def _linear(self, weight: str, ours: str) -> None:
        """A weight and, where the file has one, its bias."""
        self._move(weight, f"{ours}.weight")
        bias = weight.removesuffix("weight") + "bias"
        if bias in self.left:
            self._move(bias, f"{ours}.bias")

    def _move(self, name: str, ours: str) -> None:
        if name not in self.left:
            raise InputError(f"{self.source}: tensor {name!r} is missing")
        self.found[ours] = self.left.pop(name)


def _is_mask(tensor: Tensor) -> bool:
    """A causal mask: only two values (0 and 1, or 0 and -inf), constant along each side of the diagonal."""
    if tensor.dtype == torch.bool:
        return True
    square = tensor.reshape(-1, *tensor.shape[-2:])[0]
    lower, upper = square.tril(), square.triu(1)
    return bool(square[0, 0] != 0 and (lower == square[0, 0] * torch.ones_like(lower).tril()).all()) and bool(
        ((upper == 0) | upper.isinf()).all()
    )
