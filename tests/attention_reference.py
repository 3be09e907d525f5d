"""Slow, obvious float64 attention and its relevance, on one sequence, with loops.

Everything that attention networks vary is in one `Attention`. Relevance itself is on every edge,
never a density. Equations (R at the output of a step, sums over its index):

- dense, shift, mix of heads: Epsilon(0), R_i = sum_j x_i w_ij / z_j R_j with the bias in z
- product o = sum_s w_s v_s: w_s v_s / o of R to the pair s; under "attn" half of it to w_s and half
  to v_s, under "cp" all of it to v_s
- softmax, "attn": R_i = u_i (R_i - w_i sum_j R_j), and 0 where u_i is masked; "cp": 0
- soft cap, rotation's and norm's scale: R passes
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tests.reference import dense_layer, epsilon_rule


@dataclasses.dataclass(frozen=True)
class Attention:
    """What one attention layer computes. H heads, G key and value heads, D wide, T x S scores."""

    heads: int = 2
    groups: int = 2
    scale: float = 0.5
    bias: np.ndarray | None = None  # (H, T, S), added to the scaled scores
    allowed: np.ndarray | None = None  # (T, S), False: masked
    rotation: np.ndarray | None = None  # (T, D, D): q_t @ rotation[t], likewise k
    sink: np.ndarray | None = None  # (H,): exp(sink) more in the denominator
    cap: float | None = None  # cap * tanh(score / cap)
    unit: bool = False  # q and k divided by their root mean square
    before: np.ndarray | None = None  # (H, H): mixes the heads' scores
    after: np.ndarray | None = None  # (H, H): mixes the heads' weights


@dataclasses.dataclass
class Values:
    """Every intermediate value of one sequence; heads first."""

    raw: dict[str, np.ndarray]  # q (H, T, D), k and v (G, S, D)
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    scores: np.ndarray  # (H, T, S), scaled and capped
    mixed: np.ndarray  # scores after `before`
    logits: np.ndarray  # with bias and mask
    softmax: np.ndarray
    weights: np.ndarray  # after `after`
    heads: np.ndarray  # (H, T, D)
    out: np.ndarray  # (T, M)


def _dense(p, name, x):
    return x @ p[name] + p[f"b{name}"]


def _heads(x, count):
    """(T, count * D) -> (count, T, D)."""
    return x.reshape(len(x), count, -1).transpose(1, 0, 2)


def _mix(a, matrix):
    return a if matrix is None else np.einsum("hts,hg->gts", a, matrix)


def forward(p, spec, x, memory=None):
    """All values for queries from x (T, M) and keys and values from memory (S, M) or x."""
    memory = x if memory is None else memory
    raw = {
        "q": _heads(_dense(p, "q", x), spec.heads),
        "k": _heads(_dense(p, "k", memory), spec.groups),
        "v": _heads(_dense(p, "v", memory), spec.groups),
    }
    q, k, v = raw["q"].copy(), raw["k"].copy(), raw["v"]
    for a in (q, k):
        for h in range(len(a)):
            for t in range(a.shape[1]):
                if spec.unit:
                    a[h, t] /= np.sqrt(np.mean(a[h, t] ** 2))
                if spec.rotation is not None:
                    a[h, t] = a[h, t] @ spec.rotation[t]
    shape = (spec.heads, len(x), len(memory))
    scores, softmax = np.zeros(shape), np.zeros(shape)
    heads = np.zeros((spec.heads, len(x), v.shape[-1]))
    for h, t, s in np.ndindex(shape):
        scores[h, t, s] = q[h, t] @ k[h * spec.groups // spec.heads, s] * spec.scale
    if spec.cap is not None:
        scores = spec.cap * np.tanh(scores / spec.cap)
    mixed = _mix(scores, spec.before)
    logits = mixed + (0.0 if spec.bias is None else spec.bias)
    if spec.allowed is not None:
        logits = np.where(spec.allowed, logits, -np.inf)
    for h, t in np.ndindex(shape[:2]):
        top = max(0.0, logits[h, t].max())
        exponentials = np.exp(logits[h, t] - top)
        more = 0.0 if spec.sink is None else np.exp(spec.sink[h] - top)
        total = exponentials.sum() + more
        softmax[h, t] = exponentials / total if total > 0 else 0.0
    weights = _mix(softmax, spec.after)
    for h, t in np.ndindex(shape[:2]):
        heads[h, t] = weights[h, t] @ v[h * spec.groups // spec.heads]
    merged = heads.transpose(1, 0, 2).reshape(len(x), -1)
    out = _dense(p, "o", merged)
    return Values(raw, q, k, v, scores, mixed, logits, softmax, weights, heads, out)


def _dense_back(kernel, bias, x, relevance):
    layer = dense_layer(kernel, bias)
    rows = [epsilon_rule(layer, a, r, epsilon=0.0) for a, r in zip(x, relevance, strict=True)]
    return np.stack(rows)


def _mix_back(a, matrix, relevance):
    """Epsilon(0) through a mix of the heads, for every query and key."""
    if matrix is None:
        return relevance
    shape = a.shape
    flat = _dense_back(matrix, None, a.reshape(len(a), -1).T, relevance.reshape(len(a), -1).T)
    return flat.T.reshape(shape)


def _over(a, b):
    """a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)


def relevance(p, spec, x, seed, rule="attn", memory=None):
    """Relevance of x (and of memory, if given) for the weights `seed` on the output (T, M)."""
    value = forward(p, spec, x, memory)
    source = x if memory is None else memory
    merged = value.heads.transpose(1, 0, 2).reshape(len(x), -1)
    r_heads = _heads(_dense_back(p["o"], p["bo"], merged, seed * value.out), spec.heads)
    r_weights, r_v = np.zeros_like(value.weights), np.zeros_like(value.v)
    half = 0.5 if rule == "attn" else 0.0
    for h, t in np.ndindex(value.heads.shape[:2]):
        g = h * spec.groups // spec.heads
        pairs = value.weights[h, t][:, None] * value.v[g]  # (S, D)
        shares = _over(pairs, value.heads[h, t]) * r_heads[h, t]
        r_weights[h, t] = half * shares.sum(1)
        r_v[g] += (1 - half) * shares
    r_q, r_k = np.zeros_like(value.q), np.zeros_like(value.k)
    if rule == "attn":
        r_softmax = _mix_back(value.softmax, spec.after, r_weights)
        r_logits = np.zeros_like(r_softmax)
        for h, t in np.ndindex(r_logits.shape[:2]):
            u, w, r = value.logits[h, t], value.softmax[h, t], r_softmax[h, t]
            seen = np.isfinite(u)
            r_logits[h, t, seen] = u[seen] * (r - w * r.sum())[seen]
        r_mixed = np.where(
            np.isfinite(value.logits), r_logits * _over(value.mixed, value.logits), 0.0
        )
        r_scores = _mix_back(value.scores, spec.before, r_mixed)
        for h, t, s in np.ndindex(r_scores.shape):
            g = h * spec.groups // spec.heads
            pairs = value.q[h, t] * value.k[g, s]
            shares = pairs / pairs.sum() * r_scores[h, t, s]
            r_q[h, t] += shares / 2
            r_k[g, s] += shares / 2
    if spec.rotation is not None:
        before = {n: value.raw[n] for n in "qk"}
        if spec.unit:
            before = {n: a / np.sqrt((a**2).mean(-1, keepdims=True)) for n, a in before.items()}
        for a, r in ((before["q"], r_q), (before["k"], r_k)):
            for h, t in np.ndindex(a.shape[:2]):
                r[h, t] = _dense_back(spec.rotation[t], None, a[h, t][None], r[h, t][None])[0]
    found = [np.zeros_like(x), np.zeros_like(source)]
    for name, rows, r in (("q", 0, r_q), ("k", 1, r_k), ("v", 1, r_v)):
        flat = r.transpose(1, 0, 2).reshape(r.shape[1], -1)
        found[rows] += _dense_back(p[name], p[f"b{name}"], (x, source)[rows], flat)
    return found[0] + found[1] if memory is None else tuple(found)


def linear_relevance(p, heads, x, seed, rule="attn"):
    """The same for linear attention, o = phi(q) (phi(k)' v) / phi(q) sum phi(k), phi = elu + 1.

    Products give half to each factor; the divisor gets half ("attn") or nothing ("cp").
    """
    q, k, v = (_heads(_dense(p, name, x), heads) for name in "qkv")
    a, b = (np.where(u > 0, u + 1, np.exp(np.minimum(u, 0))) for u in (q, k))
    r_q, r_k, r_v = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    state, total = np.einsum("hsm,hsd->hmd", b, v), b.sum(1)
    out = np.einsum("htm,hmd->htd", a, state) / np.einsum("htm,hm->ht", a, total)[..., None]
    merged = out.transpose(1, 0, 2).reshape(len(x), -1)
    seeded = seed * (merged @ p["o"] + p["bo"])
    r_out = _heads(_dense_back(p["o"], p["bo"], merged, seeded), heads)
    share = 0.5 if rule == "attn" else 0.0
    r_state, r_total = np.zeros_like(state), np.zeros_like(total)
    for h, t in np.ndindex(out.shape[:2]):
        above = a[h, t][:, None] * state[h]  # (M, D)
        part = above / above.sum(0) * r_out[h, t] * (1 - share)
        r_q[h, t] += part.sum(1) / 2
        r_state[h] += part / 2
        below = a[h, t] * total[h]
        part = below / below.sum() * r_out[h, t].sum() * share
        r_q[h, t] += part / 2
        r_total[h] += part / 2
    for h, m in np.ndindex(total.shape):
        r_k[h, :, m] += b[h, :, m] / total[h, m] * r_total[h, m]
        for d in range(state.shape[2]):
            pairs = b[h, :, m] * v[h, :, d]
            part = pairs / pairs.sum() * r_state[h, m, d]
            r_k[h, :, m] += part / 2
            r_v[h, :, d] += part / 2
    found = np.zeros_like(x)
    for name, r in (("q", r_q), ("k", r_k), ("v", r_v)):
        flat = r.transpose(1, 0, 2).reshape(len(x), -1)
        found += _dense_back(p[name], p[f"b{name}"], x, flat)
    return found, merged @ p["o"] + p["bo"]
