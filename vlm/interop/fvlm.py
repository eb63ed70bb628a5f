"""fVLM's published checkpoint.pt: one file of tensors, and an optional `config` of what tensors cannot tell.

Names are matched by their endings, so that a file of the whole trainer's state, of a compiled or of a wrapped model is
read alike, as are both namings of DINOv2's attention.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Size, Tensor

from vlm.contracts.errors import InputError
from vlm.interop.foreign import Foreign, natural
from vlm.models.encoders.dinov2_folder import PARTS, own_name

FILE = "checkpoint.pt"
WRAPPERS = ("model_state_dict", "state_dict", "model")  # keys under which trainers keep the tensors
DINO = re.compile(r"(?:^|\.)dino\.(.+)$")
LANGUAGE = re.compile(r"(?:^|\.)llm\.((?:model|lm_head)\..+)$")
BETWEEN = re.compile(
    r"(?:^|\.)(query_input_proj|output_proj|dino_to_llm|llm_to_query|q_static|q_init)(\.weight|\.bias)?$"
)
OWN = {
    "query_input_proj": "ask", "output_proj": "tell", "dino_to_llm": "project", "llm_to_query": "steer",
    "q_static": "static", "q_init": "first",
}  # fmt: skip
LEFT_OUT = ("rotary_emb.inv_freq",)  # follows from the sizes; older files hold it
HEADS = {384: 6}  # DINOv2-small, by its width
LANGUAGES = {2048: (32, 130_000.0), 576: (9, 100_000.0)}  # SmolLM2's, by width: heads, base of positions
EPSILON = 1e-5  # of SmolLM2's norms
POSITIONS = 8192  # SmolLM2's context
FRAMES, STILL, TEXT = 64, 8, 1024  # of a clip, of a picture, and text tokens, as in stages 2 and 3
LEAST = 260  # entries of a learned tokenizer: the bytes and its special tokens
SHOWN = 224  # pixels a side of a frame, whatever size the table of positions was trained for
NAMED = 5  # faults that a message names
SPEECHLESS = (
    "this model has no tokenizer, as the file holds none: it takes ids alone; for text name the folder of "
    "SmolLM2-1.7B-Instruct or SmolLM2-135M-Instruct with base=DIR"
)


def read(path: Path, base: str | None = None) -> Foreign:
    """base: folder of the language model, whose tokenizer and chat template the model takes; None for ids alone.

    Raises: InputError naming what is damaged, unknown, missing, of another shape, or cannot be told.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file} is not there; give fVLM's {FILE}, or the folder that holds it")
    state, config = _opened(file)
    named, published = _named(state, file)
    sizes = Sizes.of(named, config, file)
    named = {name: _flat(name, tensor, sizes) for name, tensor in named.items()}
    _refuse_strange(named, sizes, published, file)
    head, table = named.get("llm.lm_head.weight"), named["llm.model.embed_tokens.weight"]
    tied = head is None or torch.equal(head, table)
    if tied:
        named.pop("llm.lm_head.weight", None)
    dtype = reduce(torch.promote_types, {tensor.dtype for tensor in named.values()})
    overrides = [*sizes.overrides(), f"llm.tie={'true' if tied else 'false'}", *_speech(base, sizes)]
    return Foreign(overrides, named, dtype, notes=() if base else (SPEECHLESS,))


@dataclass(frozen=True)
class Sizes:
    """What the tensors tell, and heads, positions and their base by `config` or by the published sizes.

    grid: patches a side of the table of positions.   seen, heads, blocks, inner: of DINOv2, its width first.   query: width of a query.
    """

    patch: int
    grid: int
    seen: int
    heads: int
    blocks: int
    inner: int
    query: int
    vocabulary: int
    width: int
    layers: int
    mlp: int
    reading: int  # heads of the language model
    kv_heads: int
    theta: float
    epsilon: float
    positions: int

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], config: Mapping[str, Any], file: Path) -> Sizes:
        """Raises: InputError for a tensor that is missing or of other dimensions, or a size that nothing tells."""

        def shape(name: str, dimensions: int) -> Size:
            if name not in tensors:
                raise InputError(f"{file}: {_public(name)} is missing, which tells a size of the model; copy it again")
            if tensors[name].ndim != dimensions:
                raise InputError(f"{file}: {_public(name)} has shape {list(tensors[name].shape)}; copy it again")
            return tensors[name].shape

        dino, llm = config.get("dino", {}), config.get("llm", {})
        seen, width = shape("encoder.patches.weight", 4)[0], shape("llm.model.embed_tokens.weight", 2)[1]
        heads = dino.get("num_attention_heads", HEADS.get(seen))
        reading, theta = LANGUAGES.get(width, (None, None))
        reading = llm.get("num_attention_heads", reading)
        theta = (llm.get("rope_parameters") or {}).get("rope_theta", llm.get("rope_theta", theta))
        untold = {"dino.num_attention_heads": heads, "llm.num_attention_heads": reading, "llm.rope_theta": theta}
        if lacking := [name for name, value in untold.items() if not isinstance(value, int | float) or value <= 0]:
            raise InputError(
                f"{file}: tensors do not tell {', '.join(lacking)}, and widths {seen} and {width} are of no published "
                "size; add an entry config={'dino': {...}, 'llm': {...}} with them, as transformers' configs have them"
            )
        _refuse_other_kinds(dino, llm, file)
        if seen % heads or width % reading:
            raise InputError(f"{file}: config says {heads} and {reading} heads, which do not divide {seen} and {width}")
        return cls(
            patch=tensors["encoder.patches.weight"].shape[-1],
            grid=round((shape("encoder.positions", 3)[1] - 1) ** 0.5),
            seen=seen,
            heads=heads,
            blocks=_count(tensors, r"encoder\.blocks\.(\d+)\."),
            inner=shape("encoder.blocks.0.grow.weight", 2)[0],
            query=shape("connector.ask.weight", 2)[1],
            vocabulary=shape("llm.model.embed_tokens.weight", 2)[0],
            width=width,
            layers=_count(tensors, r"llm\.model\.layers\.(\d+)\."),
            mlp=shape("llm.model.layers.0.mlp.gate_proj.weight", 2)[0],
            reading=reading,
            kv_heads=max(1, shape("llm.model.layers.0.self_attn.k_proj.weight", 2)[0] // (width // reading)),
            theta=float(theta),
            epsilon=llm.get("rms_norm_eps", EPSILON),
            positions=llm.get("max_position_embeddings", POSITIONS),
        )

    @property
    def frames(self) -> int:
        """Of a clip at most: what is published, or as many as leave half of the positions to text."""
        return min(FRAMES, self.positions // 2)

    @property
    def text(self) -> int:
        """Text tokens of a row at most."""
        return min(TEXT, self.positions - self.frames)

    def overrides(self) -> list[str]:
        """The configuration of the twin."""
        own = self.grid * self.patch
        encoder = {"patch": self.patch, "width": self.seen, "layers": self.blocks, "heads": self.heads, "mlp": self.inner,
                   "grid": self.grid, "views.size": min(SHOWN, own) if SHOWN % self.patch == 0 else own,
                   "views.frames": self.frames, "views.still": min(STILL, self.frames)}  # fmt: skip
        llm = {"family": "llama", "vocab_size": self.vocabulary, "width": self.width, "layers": self.layers,
               "heads": self.reading, "kv_heads": self.kv_heads, "mlp": self.mlp, "max_positions": self.positions,
               "rope_theta": self.theta, "norm_eps": self.epsilon}  # fmt: skip
        return [
            *("encoder=dinov2_small", "connector=foveal", "fusion=foveated", "llm=mistral_nano", "phase.max_steps=1"),
            *(f"encoder.{key}={value}" for key, value in encoder.items()),
            f"connector.query_width={self.query}",
            *(f"llm.{key}={value}" for key, value in llm.items()),
        ]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every tensor that the file must hold."""
        seen, inner, width, mlp, query = self.seen, self.inner, self.width, self.mlp, self.query
        found: dict[str, tuple[int, ...]] = {
            "encoder.cls": (1, 1, seen),
            "encoder.mask": (1, seen),
            "encoder.positions": (1, self.grid**2 + 1, seen),
            "encoder.patches.weight": (seen, 3, self.patch, self.patch),
            "encoder.patches.bias": (seen,),
            **_pair("encoder.norm", seen),
            "connector.static": (1, query),
            "connector.first": (1, query),
            "connector.ask.weight": (seen, query),
            **_pair("connector.tell", seen, seen),
            **_pair("connector.project", width, seen),
            **_pair("connector.steer", query, width),
            "llm.model.embed_tokens.weight": (self.vocabulary, width),
            "llm.model.norm.weight": (width,),
        }
        for number in range(self.blocks):
            block = f"encoder.blocks.{number}"
            found |= {f"{block}.{name}": (seen,) for name in ("scale1", "scale2")}
            found |= _pair(f"{block}.norm1", seen) | _pair(f"{block}.norm2", seen)
            for name in ("q", "k", "v", "out"):
                found |= _pair(f"{block}.{name}", seen, seen)
            found |= _pair(f"{block}.grow", inner, seen) | _pair(f"{block}.shrink", seen, inner)
        shared = self.kv_heads * (width // self.reading)
        layer = {"self_attn.q_proj": (width, width), "self_attn.k_proj": (shared, width), "self_attn.v_proj": (shared, width),
                 "self_attn.o_proj": (width, width), "mlp.gate_proj": (mlp, width), "mlp.up_proj": (mlp, width),
                 "mlp.down_proj": (width, mlp), "input_layernorm": (width,), "post_attention_layernorm": (width,)}  # fmt: skip
        for number in range(self.layers):
            found |= {f"llm.model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
        return found


def _opened(file: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Tensors by published name, and what `config` says of the two models."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)  # a pickle could run anything otherwise
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{file} cannot be read as plain tensors: it is cut or damaged, or holds objects, which are not opened, as they "
            "could run code; copy it again, or write it again from its state_dict with torch.save"
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{file} holds no tensors by name, but a {type(found).__name__}; give fVLM's {FILE}")
    config = found.get("config")
    config = config if isinstance(config, dict) else {}
    state = next((found[key] for key in WRAPPERS if isinstance(found.get(key), dict)), None)
    if state is None:
        state = {name: value for name, value in found.items() if name != "config"}
    if strange := [str(name) for name, value in state.items() if not isinstance(value, Tensor)]:
        raise InputError(f"{file}: {', '.join(strange[:NAMED])} is no tensor; give fVLM's {FILE}")
    kinds = {name: config[name] for name in ("dino", "llm") if isinstance(config.get(name), dict)}
    return {str(name): tensor for name, tensor in state.items()}, kinds


def _named(state: Mapping[str, Tensor], file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by our names, and the name that each has in the file."""
    named: dict[str, Tensor] = {}
    published: dict[str, str] = {}
    for name, tensor in state.items():
        plain = name.replace("_orig_mod.", "")
        if plain.endswith(LEFT_OUT):
            continue
        if found := DINO.search(plain):
            own = f"encoder.{own_name(found[1])}"
        elif found := LANGUAGE.search(plain):
            own = f"llm.{found[1]}"
        elif found := BETWEEN.search(plain):
            own = f"connector.{OWN[found[1]]}{found[2] or ''}"
        else:
            own = name  # refused below, with all the others
        if own in named:
            raise InputError(f"{file}: {published[own]} and {name} are the same part of the model; leave one out")
        named[own], published[own] = tensor, name
    return named, published


def _refuse_strange(named: Mapping[str, Tensor], sizes: Sizes, published: Mapping[str, str], file: Path) -> None:
    wanted = sizes.shapes()
    if "llm.lm_head.weight" in named:
        wanted["llm.lm_head.weight"] = (sizes.vocabulary, sizes.width)
    faults = [f"{_public(name)} is missing" for name in natural([*(wanted.keys() - named.keys())])]
    faults += [f"{published[name]} is not part of an fVLM" for name in natural([*(named.keys() - wanted.keys())])]
    faults += [
        f"{published[name]} has shape {list(tensor.shape)}, the others ask for {list(wanted[name])}"
        for name, tensor in named.items()
        if name in wanted and tuple(tensor.shape) != wanted[name]
    ]
    if faults:
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise InputError(f"{file}: {'; '.join(faults[:NAMED])}{more}; give fVLM's {FILE}")


def _refuse_other_kinds(dino: Mapping[str, Any], llm: Mapping[str, Any], file: Path) -> None:
    """What changes the numbers of a model and is another than in both published ones."""
    rope = llm.get("rope_parameters") or llm.get("rope_scaling") or {}
    said = {
        "llm.hidden_act": (llm.get("hidden_act", "silu"), "silu"),
        "llm.rope_type": (rope.get("rope_type", rope.get("type", "default")), "default"),
        "dino.layer_norm_eps": (dino.get("layer_norm_eps", 1e-6), 1e-6),
        "dino.hidden_act": (dino.get("hidden_act", "gelu"), "gelu"),
    }
    other = [f"{name} is {value!r}, not {known!r}" for name, (value, known) in said.items() if value != known]
    if other:
        raise InputError(f"{file}: by its config {', '.join(other)}; fVLM is read with these values alone")


def _flat(name: str, tensor: Tensor, sizes: Sizes) -> Tensor:
    """Queries are kept with any number of axes in front."""
    is_query = name in ("connector.static", "connector.first") and tensor.numel() == sizes.query
    return tensor.reshape(1, -1) if is_query else tensor


def _speech(base: str | None, sizes: Sizes) -> list[str]:
    """Tokenizer and template: the folder's, or one that has learned nothing."""
    if base is None:
        small = ["~llm.tokenizer", "llm.tokenizer={_target_: vlm.data.tokens.Characters, alphabet: a, size: 3}"]
        learned = [f"llm.tokenizer.size={sizes.vocabulary}"] if sizes.vocabulary >= LEAST else small
        return [*learned, f"llm.template.max_tokens={sizes.text}"]
    path = "'" + base.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return [
        "~llm.tokenizer",
        f"llm.tokenizer={{_target_: vlm.data.tokens.FolderTokenizer, path: {path}}}",
        "~llm.template",
        f"llm.template={{_target_: vlm.data.chat_template.ChatTemplate, max_tokens: {sizes.text}, date: '2025-01-01', "
        f"path: {path}}}",
    ]


def _pair(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max((int(found[1]) for name in tensors if (found := re.match(pattern, name))), default=-1)


def _public(own: str) -> str:
    """The published name of a tensor of ours; of the attention's two, the older."""
    part, _, name = own.partition(".")
    if part == "llm":
        return own
    first, _, kind = name.partition(".")
    if part == "connector":
        home = "encoder." if first in ("ask", "tell") else ""
        return home + next(theirs for theirs, ours in OWN.items() if ours == first) + (f".{kind}" if kind else "")
    layer = re.match(r"blocks\.(\d+)\.(.+)", name)
    front, inner = (f"encoder.layer.{layer[1]}.", layer[2]) if layer else ("", name)
    theirs = {ours: theirs for theirs, ours in reversed(PARTS.items())}
    first, _, kind = inner.partition(".")
    return f"encoder.dino.{front}{theirs[first]}" + (f".{kind}" if kind else "")
