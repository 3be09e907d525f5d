"""Families of attention, each in its spellings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.attention_networks import (
    CAUSAL,
    CAUSALS,
    GROUPED,
    HEADS,
    LOW,
    PLAIN,
    SIZE,
    TIME,
    masked,
    normalised,
    scores,
    weighted,
)
from tests.attention_reference import Attention

# --- biases

RNG = np.random.default_rng(7)
TABLE = RNG.normal(size=(HEADS, 2 * TIME - 1))
DISTANCE = np.arange(TIME)[:, None] - np.arange(TIME)
RELATIVE = TABLE[:, DISTANCE + TIME - 1]
SLOPES = np.array([0.5, 0.25])[:, None, None]
ALIBI = -SLOPES * np.abs(DISTANCE)
BIASED = {
    "gathered inside": masked(lambda u: u + jnp.asarray(TABLE)[:, DISTANCE + TIME - 1]),
    "taken inside": masked(
        lambda u: jnp.take(jnp.asarray(TABLE), jnp.asarray(DISTANCE + TIME - 1), axis=1) + u
    ),
    "before the scale": masked(lambda u: (2 * u + 2 * RELATIVE) / 2),
    "dot_product_attention": lambda q, k, v: jax.nn.dot_product_attention(
        q, k, v, bias=jnp.asarray(RELATIVE)[None]
    ),
}

# --- rotations

ANGLES = np.arange(TIME)[:, None] / 10.0 ** (np.arange(0, SIZE, 2) / SIZE)
COS, SIN = np.cos(ANGLES)[:, None], np.sin(ANGLES)[:, None]
COS2, SIN2 = np.concatenate([COS, COS], -1), np.concatenate([SIN, SIN], -1)


def rotation(pairs):
    """The matrices (T, D, D) that turn the planes (i, j) of `pairs`."""
    matrices = np.zeros((TIME, SIZE, SIZE))
    for t in range(TIME):
        for (i, j), angle in zip(pairs, ANGLES[t], strict=True):
            c, s = np.cos(angle), np.sin(angle)
            matrices[t][np.ix_((i, j), (i, j))] = [[c, s], [-s, c]]
    return matrices


HALVES, NEIGHBOURS = rotation([(0, 2), (1, 3)]), rotation([(0, 1), (2, 3)])


def rotated(turn):
    return lambda q, k, v: PLAIN["einsum"](turn(q), turn(k), v)


def rotate_half(x):
    a, b = jnp.split(x, 2, -1)
    return x * COS2 + jnp.concatenate([-b, a], -1) * SIN2


def half_by_concatenation(x):
    angles = jnp.arange(x.shape[1])[:, None, None] * jnp.asarray(ANGLES[1])
    c, s = jnp.cos(angles), jnp.sin(angles)
    a, b = x[..., : SIZE // 2], x[..., SIZE // 2 :]
    return jnp.concatenate([a * c - b * s, b * c + a * s], -1)


def half_by_roll(x):
    return x * COS2 + jnp.roll(x, SIZE // 2, -1) * np.concatenate([-SIN, SIN], -1)


def neighbours_by_stack(x):
    a, b = x[..., ::2], x[..., 1::2]
    return jnp.stack([a * COS - b * SIN, b * COS + a * SIN], -1).reshape(x.shape)


def neighbours_by_setting(x):
    a, b = x[..., ::2], x[..., 1::2]
    y = jnp.zeros_like(x).at[..., ::2].set(a * COS - b * SIN)
    return y.at[..., 1::2].set(b * COS + a * SIN)


def neighbours_by_complex(x):
    z = lax.complex(x[..., ::2], x[..., 1::2]) * jnp.exp(1j * ANGLES)[:, None]
    return jnp.stack([z.real, z.imag], -1).reshape(x.shape)


ROTATED_HALVES = {
    "rotate_half": rotated(rotate_half),
    "concatenated": rotated(half_by_concatenation),
    "rolled": rotated(half_by_roll),
}
ROTATED_NEIGHBOURS = {
    "stacked": rotated(neighbours_by_stack),
    "set": rotated(neighbours_by_setting),
    "complex": rotated(neighbours_by_complex),
    "by matrices": rotated(lambda x: jnp.einsum("bthd,tde->bthe", x, jnp.asarray(NEIGHBOURS))),
}

# --- sinks, and the denominator that is one too large

SINK = np.array([0.3, -1.0])[:, None, None]


def sink_as_a_key(u):
    column = jnp.broadcast_to(jnp.asarray(SINK), (*u.shape[:3], 1))
    return jax.nn.softmax(jnp.concatenate([u, column], -1))[..., :-1]


def sink_in_the_denominator(u):
    top = jnp.maximum(u.max(-1, keepdims=True), SINK)
    e = jnp.exp(u - top)
    return e / (e.sum(-1, keepdims=True) + jnp.exp(SINK - top))


def softmax_one(u):
    top = jnp.maximum(lax.stop_gradient(u.max(-1, keepdims=True)), 0)
    e = jnp.exp(u - top)
    return e / (jnp.exp(-top) + e.sum(-1, keepdims=True))


SINKS = {
    "as a key": normalised(sink_as_a_key),
    "in the denominator": normalised(sink_in_the_denominator),
}
ONES = {
    "shifted": normalised(softmax_one),
    "bare": normalised(lambda u: (lambda e: e / (1 + e.sum(-1, keepdims=True)))(jnp.exp(u))),
    "padded": normalised(lambda u: jax.nn.softmax(jnp.pad(u, [(0, 0)] * 3 + [(1, 0)]))[..., 1:]),
}

# --- caps, norms of queries and keys, talking heads

CAPPED = {
    "tanh": masked(lambda u: 2 * jnp.tanh(u / 2)),
    "tanh, scale last": masked(lambda u: jnp.tanh(u * 0.5) * 2.0),
}


def rms_norm(x):
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True))


def l2_norm(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


UNITS = {
    "RMS": lambda q, k, v: PLAIN["einsum"](rms_norm(q), rms_norm(k), v),
    "L2": lambda q, k, v: PLAIN["einsum"](l2_norm(q) * SIZE, l2_norm(k), v),
    "RMS with scales": lambda q, k, v: PLAIN["einsum"](
        rms_norm(q) * np.arange(1.0, 5), rms_norm(k) / np.arange(1.0, 5), v
    ),
}
BEFORE, AFTER = RNG.normal(size=(HEADS, HEADS)), RNG.normal(size=(HEADS, HEADS))


def talking(mix):
    return lambda q, k, v: weighted(mix(jax.nn.softmax(mix(scores(q, k), BEFORE)), AFTER), v)


TALKING = {
    "einsum": talking(lambda a, m: jnp.einsum("bhts,hg->bgts", a, m)),
    "matmul": talking(lambda a, m: (a.transpose(0, 2, 3, 1) @ m).transpose(0, 3, 1, 2)),
    "tensordot": talking(lambda a, m: jnp.moveaxis(jnp.tensordot(a, m, ((1,), (0,))), -1, 1)),
}

MULTI_QUERY = {name: GROUPED[name] for name in ("broadcast", "einsum", "dot_product_attention")}
# name: (what it computes, key and value heads, query heads, layers beyond 4 dense, 2 matmul and 1
# softmax, spellings)
FAMILIES = {
    "plain": (Attention(), 2, 2, {}, PLAIN),
    "causal": (Attention(allowed=CAUSAL), 2, 2, {}, CAUSALS),
    "grouped": (Attention(heads=4, groups=2), 2, 4, {}, GROUPED),
    "multi-query": (Attention(heads=4, groups=1), 1, 4, {}, MULTI_QUERY),
    "relative": (Attention(bias=RELATIVE), 2, 2, {}, BIASED),
    "ALiBi": (
        Attention(bias=ALIBI),
        2,
        2,
        {},
        {"added": masked(lambda u: u - SLOPES * jnp.abs(jnp.asarray(DISTANCE)))},
    ),
    "ALiBi, causal": (
        Attention(bias=ALIBI, allowed=CAUSAL),
        2,
        2,
        {},
        {"masked": masked(lambda u: jnp.where(CAUSAL, u + ALIBI, LOW))},
    ),
    "RoPE, halves": (Attention(rotation=HALVES), 2, 2, {}, ROTATED_HALVES),
    "RoPE, neighbours": (Attention(rotation=NEIGHBOURS), 2, 2, {}, ROTATED_NEIGHBOURS),
    "sink": (Attention(sink=SINK.ravel()), 2, 2, {}, SINKS),
    "off by one": (Attention(sink=np.zeros(HEADS)), 2, 2, {}, ONES),
    "soft cap": (Attention(cap=2.0), 2, 2, {"activation": 1}, CAPPED),
    "soft cap, causal": (
        Attention(cap=2.0, allowed=CAUSAL),
        2,
        2,
        {"activation": 1},
        {"tanh": masked(lambda u: jnp.where(CAUSAL, 2 * jnp.tanh(u / 2), LOW))},
    ),
    "QK-norm": (Attention(unit=True), 2, 2, {"norm": 2}, UNITS),
    "QK-norm, RoPE": (
        Attention(unit=True, rotation=HALVES),
        2,
        2,
        {"norm": 2},
        {"RMS": lambda q, k, v: ROTATED_HALVES["rotate_half"](rms_norm(q), rms_norm(k), v)},
    ),
    "talking heads": (Attention(before=BEFORE, after=AFTER), 2, 2, {"dense": 2}, TALKING),
}
