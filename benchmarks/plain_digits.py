"""What a user would write instead: purevlm in NumPy alone, one picture a step, forward and backward by hand, float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
VISUAL, HEADS, HEAD = 28, 4, 8  # visual tokens; heads; width of a head
RATE, BETAS, EPSILON = 3e-3, (0.85, 0.99), 1e-8


class PlainDigits:
    """The published recipe, its hand-written backward included (gradients of RMS norms are times the rms value).

    weights: by the last part of their names.   steps: over which the rate falls to zero.
    whole: False works in the public file's form: products with weights over all positions at once, norms position by
    position, attention by query and head, and its backward key by key. True does everything over all positions and
    heads in one call, which is what NumPy allows at best. The values are the same.
    """

    def __init__(self, weights: Mapping[str, Array], steps: int, whole: bool = False) -> None:
        self.p = {name: value.astype(np.float64) for name, value in weights.items()}
        self.first = {name: np.zeros_like(value) for name, value in self.p.items()}
        self.second = {name: np.zeros_like(value) for name, value in self.p.items()}
        self.steps, self.taken = steps, 0
        self.norm = _norm if whole else _norm_by_position
        self.attention: Any = _attention if whole else _attention_by_query
        self.attention_back: Any = _attention_back if whole else _attention_back_by_key

    def step(self, pixels: Array, ids: Sequence[int]) -> float:
        """pixels [196], ids with beginning and end -> the loss before the step."""
        p, tokens = self.p, np.asarray(ids)
        x = pixels / (np.linalg.norm(pixels) + EPSILON)
        seen = {name: p[name] @ x for name in p if name.startswith("bae")}
        f1, n1 = _unit(seen["bae1_l"] * seen["bae1_r"])
        f2, n2 = _unit(seen["bae2_l"] * seen["bae2_r"])
        a, b = p["tp_proj_a"] @ f1, p["tp_proj_b"] @ f2
        degree2 = seen["bae_deg2_0"] * seen["bae_deg2_1"]
        degree3 = seen["bae_deg3_0"] * seen["bae_deg3_1"] * seen["bae_deg3_2"]
        f, n = _unit(np.concatenate([a * b, degree2, degree3]))
        left, right = p["vis_proj_l"] @ f, p["vis_proj_r"] @ f
        length = VISUAL + len(tokens)
        h0, s0 = self.norm(np.concatenate([np.tile(left * right, (VISUAL, 1)), p["wte"][tokens]]) + p["wpe"][:length])
        x1, s1 = self.norm(h0)
        q, k, v = x1 @ p["wq"].T, x1 @ p["wk"].T, x1 @ p["wv"].T
        mixed, kept = self.attention(q, k, v)
        h1 = h0 + mixed @ p["wo"].T
        x2, s2 = self.norm(h1)
        hidden = x2 @ p["mlp_fc1"].T
        active = np.maximum(hidden, 0)
        h2 = h1 + active @ p["mlp_fc2"].T

        said = h2[VISUAL:-1]
        chances = _softmax(said @ p["lm_head"].T)
        places, targets = np.arange(len(said)), tokens[1:]
        loss = float(-np.log(chances[places, targets] + 1e-10).mean()) + 0.01 * self._reconstruction(degree2, x)

        g: dict[str, Any] = {}
        chances[places, targets] -= 1
        chances /= len(said)
        g["lm_head"] = chances.T @ said
        d = np.zeros_like(h2)
        d[VISUAL:-1] = chances @ p["lm_head"]
        g["mlp_fc2"] = d.T @ active
        inner = (d @ p["mlp_fc2"]) * (hidden > 0)
        g["mlp_fc1"] = inner.T @ x2
        d = d + (inner @ p["mlp_fc1"]) * s2
        g["wo"] = d.T @ mixed
        dq, dk, dv = self.attention_back(d @ p["wo"], q, k, v, kept)
        g["wq"], g["wk"], g["wv"] = dq.T @ x1, dk.T @ x1, dv.T @ x1
        d = (d + (dq @ p["wq"] + dk @ p["wk"] + dv @ p["wv"]) * s1) * s0
        g["wpe"] = np.zeros_like(p["wpe"])
        g["wpe"][:length] = d
        g["wte"] = np.zeros_like(p["wte"])
        np.add.at(g["wte"], tokens, d[VISUAL:])
        dv0 = d[:VISUAL].sum(0)
        g["vis_proj_l"], g["vis_proj_r"] = np.outer(dv0 * right, f), np.outer(dv0 * left, f)
        df = _unit_back(p["vis_proj_l"].T @ (dv0 * right) + p["vis_proj_r"].T @ (dv0 * left), f, n)
        self._encoder_back(g, df, seen, x, (f1, n1, a), (f2, n2, b))
        self._adam(g)
        return loss

    def _encoder_back(
        self, g: dict[str, Any], df: Array, seen: Mapping[str, Array], x: Array, one: Any, two: Any
    ) -> None:
        """one, two: of each bilinear map its unit features, their norm, and their projection."""
        (f1, n1, a), (f2, n2, b) = one, two
        dt, d2, d3 = np.split(df, [len(a), len(a) + len(seen["bae_deg2_0"])])
        g["tp_proj_a"], g["tp_proj_b"] = np.outer(dt * b, f1), np.outer(dt * a, f2)
        d1 = _unit_back(self.p["tp_proj_a"].T @ (dt * b), f1, n1)
        g["bae1_l"], g["bae1_r"] = np.outer(d1 * seen["bae1_r"], x), np.outer(d1 * seen["bae1_l"], x)
        d1 = _unit_back(self.p["tp_proj_b"].T @ (dt * a), f2, n2)
        g["bae2_l"], g["bae2_r"] = np.outer(d1 * seen["bae2_r"], x), np.outer(d1 * seen["bae2_l"], x)
        g["bae_deg2_0"], g["bae_deg2_1"] = np.outer(d2 * seen["bae_deg2_1"], x), np.outer(d2 * seen["bae_deg2_0"], x)
        u, v, w = (seen[f"bae_deg3_{number}"] for number in range(3))
        for number, rest in enumerate((v * w, u * w, u * v)):
            g[f"bae_deg3_{number}"] = np.outer(d3 * rest, x)

    def _reconstruction(self, degree2: Array, x: Array) -> float:
        """A logged number: nothing flows back from it."""
        u = _unit(degree2)[0]
        rows = (self.p["bae_deg2_0"], self.p["bae_deg2_1"])
        a, b = (m / (np.linalg.norm(m, axis=1, keepdims=True) + EPSILON) for m in rows)
        return float(np.clip(u @ ((a @ a.T) * (b @ b.T)) @ u - 2 * (u @ u) + x @ x, 0, 10))

    def _adam(self, g: dict[str, Array]) -> None:
        for name, gradient in g.items():
            if "bae" in name or "tp_" in name:
                norm = np.linalg.norm(gradient)
                if norm > 1:
                    gradient *= 1 / (norm + EPSILON)
        norm = np.sqrt(sum(np.sum(gradient**2) for gradient in g.values()))
        rate = RATE * (1 - self.taken / self.steps)
        self.taken += 1
        for name, gradient in g.items():
            if norm > 5:
                gradient *= 5 / norm
            first, second = self.first[name], self.second[name]
            first[:] = BETAS[0] * first + (1 - BETAS[0]) * gradient
            second[:] = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
            mean, square = first / (1 - BETAS[0] ** self.taken), second / (1 - BETAS[1] ** self.taken)
            self.p[name] -= rate * mean / (np.sqrt(square) + EPSILON)


def _unit(row: Array) -> tuple[Array, float]:
    norm = float(np.linalg.norm(row)) + EPSILON
    return row / norm, norm


def _unit_back(gradient: Array, unit: Array, norm: float) -> Array:
    return (gradient - unit * (unit @ gradient)) / norm


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _norm(rows: Array) -> tuple[Array, Array]:
    scale = np.sqrt((rows**2).mean(-1, keepdims=True) + 1e-5)
    return rows / scale, scale


def _norm_by_position(rows: Array) -> tuple[Array, Array]:
    found, scales = np.empty_like(rows), np.empty((len(rows), 1))
    for position, row in enumerate(rows):
        scale = np.sqrt(np.mean(row**2) + 1e-5)
        found[position], scales[position] = row / scale, scale
    return found, scales


def _split(rows: Array) -> Array:
    return rows.reshape(len(rows), HEADS, -1).transpose(1, 0, 2)


def _joined(heads: Array) -> Array:
    return heads.transpose(1, 0, 2).reshape(heads.shape[1], -1)


def _attention(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    q, k, v = _split(q), _split(k), _split(v)
    half = HEAD // 2
    one, two = q[..., :half] @ k[..., :half].swapaxes(1, 2), q[..., half:] @ k[..., half:].swapaxes(1, 2)
    weights = _softmax(np.where(np.tri(q.shape[1], dtype=bool), one * two / HEAD, -np.inf))
    return _joined(weights @ v), (weights, one, two)


def _attention_back(
    d: Array, q: Array, k: Array, v: Array, kept: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    weights, one, two = kept
    d, q, k, v = _split(d), _split(q), _split(k), _split(v)
    half = HEAD // 2
    dw = d @ v.swapaxes(1, 2)
    ds = weights * (dw - (weights * dw).sum(-1, keepdims=True)) / HEAD
    d1, d2 = ds * two, ds * one
    dq = np.concatenate([d1 @ k[..., :half], d2 @ k[..., half:]], -1)
    dk = np.concatenate([d1.swapaxes(1, 2) @ q[..., :half], d2.swapaxes(1, 2) @ q[..., half:]], -1)
    return _joined(dq), _joined(dk), _joined(weights.swapaxes(1, 2) @ d)


def _heads() -> list[tuple[slice, slice, slice]]:
    """Columns of each head's first half, second half and whole."""
    begins = range(0, HEADS * HEAD, HEAD)
    return [(slice(b, b + HEAD // 2), slice(b + HEAD // 2, b + HEAD), slice(b, b + HEAD)) for b in begins]


def _attention_by_query(q: Array, k: Array, v: Array) -> tuple[Array, list[list[tuple[Array, Array, Array]]]]:
    found, kept = np.empty_like(q), []
    for query in range(len(q)):
        past, row = query + 1, []
        for first, second, whole in _heads():
            one, two = k[:past, first] @ q[query, first], k[:past, second] @ q[query, second]
            weights = _softmax(one * two / HEAD)
            found[query, whole] = weights @ v[:past, whole]
            row.append((weights, one, two))
        kept.append(row)
    return found, kept


def _attention_back_by_key(
    d: Array, q: Array, k: Array, v: Array, kept: list[list[tuple[Array, Array, Array]]]
) -> tuple[Array, Array, Array]:
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for query in range(len(q)):
        past = query + 1
        for (first, second, whole), (weights, one, two) in zip(_heads(), kept[query], strict=True):
            above, q1, q2 = d[query, whole], q[query, first], q[query, second]
            dw = v[:past, whole] @ above
            ds = weights * (dw - weights @ dw) / HEAD
            d1, d2 = ds * two, ds * one
            for key in range(past):
                dv[key, whole] += weights[key] * above
                dq[query, first] += d1[key] * k[key, first]
                dq[query, second] += d2[key] * k[key, second]
                dk[key, first] += d1[key] * q1
                dk[key, second] += d2[key] * q2
    return dq, dk, dv
