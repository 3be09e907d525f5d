"""Attention in many spellings. Each core takes q (B, T, H, D), k and v (B, S, G, D)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxlrp as lrp
from tests.common import kinds
from tests.compare import assert_close
from tests.numpy_jaxpr import in_numpy

RULES = {"attn": lrp.composites.attn_lrp(), "cp": lrp.composites.cp_lrp()}
BATCH, TIME, WIDTH, HEADS, SIZE = 2, 5, 6, 2, 4
CAUSAL = np.tril(np.ones((TIME, TIME), bool))
LOW = float(np.finfo(np.float64).min)


def parameters(seed=0, heads=HEADS, groups=HEADS, bias=True, memory_width=WIDTH):
    rng = np.random.default_rng(seed)
    widths = {
        "q": (WIDTH, heads * SIZE),
        "k": (memory_width, groups * SIZE),
        "v": (memory_width, groups * SIZE),
        "o": (heads * SIZE, WIDTH),
    }
    p = {}
    for name, shape in widths.items():
        p[name] = rng.normal(size=shape) / np.sqrt(shape[0])
        p[f"b{name}"] = 0.3 * rng.normal(size=shape[1]) * bias
    return p


def sample(seed=1, time=TIME):
    return np.random.default_rng(seed).normal(size=(BATCH, time, WIDTH))


SEED = np.random.default_rng(5).normal(size=sample().shape)


def weights(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[-2]))


def explained(spellings, rules, x=None, seed=SEED):
    """Relevance and value of every spelling, compiled as one program."""
    x = sample() if x is None else x

    def every(x):
        return {
            name: (lrp.explain(fn, rules)(x, target=seed), fn(x)) for name, fn in spellings.items()
        }

    return in_numpy(every)(x)


def assert_same(found, tolerance=1e-9):
    first = next(iter(found.values()))
    for name, (relevance, value) in found.items():
        assert_close(value, first[1], tolerance, f"the value of {name}")
        assert_close(relevance, first[0], tolerance, name)


def kinds_of(fn):
    return kinds(fn, sample(), rules=RULES["attn"])


def split(x, size=SIZE):
    return x.reshape(*x.shape[:-1], -1, size)


def attention(core, p, x, memory=None):
    memory = x if memory is None else memory
    q, k, v = (
        split(a @ p[name] + p[f"b{name}"]) for name, a in (("q", x), ("k", memory), ("v", memory))
    )
    out = core(q, k, v)
    return out.reshape(*out.shape[:2], -1) @ p["o"] + p["bo"]


def softmax_by_hand(u, axis=-1):
    e = jnp.exp(u - lax.stop_gradient(u.max(axis, keepdims=True)))
    return e / e.sum(axis, keepdims=True)


def scores(q, k):
    return jnp.einsum("bthd,bshd->bhts", q, k) * 0.5


def weighted(w, v):
    return jnp.einsum("bhts,bshd->bthd", w, v)


def masked(mask):
    """A core with a function of the scores before the softmax."""
    return lambda q, k, v: weighted(jax.nn.softmax(mask(scores(q, k))), v)


def normalised(softmax):
    """A core with a spelling of softmax."""
    return lambda q, k, v: weighted(softmax(scores(q, k)), v)


# --- one function, many spellings


def by_matmul(q, k, v):
    q, k, v = (a.transpose(0, 2, 1, 3) for a in (q, k, v))
    return (jax.nn.softmax(q @ k.swapaxes(-1, -2) / 2.0) @ v).transpose(0, 2, 1, 3)


def by_dot_general(q, k, v):
    both = ((0, 2), (0, 2))
    s = lax.dot_general(k, q, (((3,), (3,)), both))  # keys first: (B, H, S, T)
    w = jax.nn.softmax(s * 0.5, axis=2)
    return lax.dot_general(v, w, (((1,), (2,)), ((0, 2), (0, 1)))).transpose(0, 3, 1, 2)


def by_vmap(q, k, v):
    def head(q, k, v):
        return jax.nn.softmax(q @ k.T * 0.5, axis=-1) @ v

    return jax.vmap(jax.vmap(head, in_axes=1, out_axes=1))(q, k, v)


def by_vmap_over_queries(q, k, v):
    def query(q, k, v):
        return jax.nn.softmax(k @ q * 0.5) @ v

    heads = jax.vmap(jax.vmap(query, (0, None, None)), (1, 1, 1), 1)
    return jax.vmap(heads)(q, k, v)


def by_loop_over_heads(q, k, v):
    outs = []
    for h in range(q.shape[2]):
        w = jax.nn.softmax(q[:, :, h] @ k[:, :, h].swapaxes(1, 2) * 0.5)
        outs.append(w @ v[:, :, h])
    return jnp.stack(outs, 2)


def by_sums(q, k, v):
    s = (q[:, :, None] * k[:, None]).sum(-1) * 0.5  # (B, T, S, H)
    w = jax.nn.softmax(s, axis=2)
    return (w[..., None] * v[:, None]).sum(2)


def keys_first(q, k, v):
    s = jnp.einsum("bshd,bthd->bsth", k, q) * 0.5
    return jnp.einsum("bsth,bshd->bthd", softmax_by_hand(s, 1), v)


def scaled_twice(q, k, v):
    root = 0.5**0.5
    w = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q * root, k * root))
    return weighted(w, v)


PLAIN = {
    "einsum": normalised(jax.nn.softmax),
    "matmul": by_matmul,
    "dot_general": by_dot_general,
    "vmap": by_vmap,
    "vmap over queries": by_vmap_over_queries,
    "loop over heads": by_loop_over_heads,
    "sums of products": by_sums,
    "keys first": keys_first,
    "dot_product_attention": lambda q, k, v: jax.nn.dot_product_attention(q, k, v, scale=0.5),
    "dot_product_attention, xla": lambda q, k, v: jax.nn.dot_product_attention(
        q, k, v, implementation="xla"
    ),
    "scale before": lambda q, k, v: weighted(
        jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q * 0.5, k)), v
    ),
    "scale twice": scaled_twice,
    "scale by division": lambda q, k, v: weighted(
        jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", q, k) / jnp.sqrt(1.0 * SIZE)), v
    ),
    "softmax by hand": normalised(softmax_by_hand),
    "softmax without shift": normalised(lambda u: jnp.exp(u) / jnp.exp(u).sum(-1, keepdims=True)),
    "softmax by logsumexp": normalised(
        lambda u: jnp.exp(u - jax.nn.logsumexp(u, axis=-1, keepdims=True))
    ),
    "softmax by log_softmax": normalised(lambda u: jnp.exp(jax.nn.log_softmax(u))),
    "softmax, transposed": normalised(lambda u: jax.nn.softmax(u.T, axis=0).T),
    "softmax, guarded": normalised(
        lambda u: (lambda e: e / jnp.maximum(e.sum(-1, keepdims=True), 1e-30))(jnp.exp(u))
    ),
    "softmax, shift clipped": normalised(
        lambda u: (lambda e: e / e.sum(-1, keepdims=True))(
            jnp.exp(u - jnp.clip(u.max(-1, keepdims=True), -10, 10))
        )
    ),
    "softmax by reciprocal": normalised(
        lambda u: (lambda e: e * jnp.reciprocal(e.sum(-1, keepdims=True)))(jnp.exp(u))
    ),
    "softmax under vmap": normalised(jax.vmap(jax.vmap(jax.vmap(softmax_by_hand)))),
    "softmax in base 2": normalised(
        lambda u: (lambda e: e / e.sum(-1, keepdims=True))(jnp.exp2(u * np.log2(np.e)))
    ),
    "dropout that is off": normalised(lambda u: jnp.where(True, jax.nn.softmax(u) / 1.0, 0.0)),
    "checkpointed": jax.checkpoint(normalised(jax.nn.softmax)),
    "jitted inside": jax.jit(normalised(jax.nn.softmax)),
}
CAUSALS = {
    "where, -inf": masked(lambda u: jnp.where(CAUSAL, u, -jnp.inf)),
    "where, lowest": masked(lambda u: jnp.where(CAUSAL, u, LOW)),
    "where, -1e30": masked(lambda u: jnp.where(CAUSAL, u, -1e30)),
    "where, turned": masked(lambda u: jnp.where(~CAUSAL, -jnp.inf, u)),
    "added, -inf": masked(lambda u: u + np.where(CAUSAL, 0.0, -np.inf)),
    "added, lowest": masked(lambda u: u + np.where(CAUSAL, 0.0, LOW)),
    "by triu": masked(lambda u: u + jnp.triu(jnp.full((TIME, TIME), -1e30), 1)),
    "by iota": masked(
        lambda u: jnp.where(
            lax.broadcasted_iota(int, u.shape, 3) <= lax.broadcasted_iota(int, u.shape, 2), u, LOW
        )
    ),
    "softmax's where": normalised(lambda u: jax.nn.softmax(u, where=CAUSAL)),
    "zeroed after exp": normalised(
        lambda u: (lambda e: e / e.sum(-1, keepdims=True))(jnp.exp(u) * CAUSAL)
    ),
    "is_causal": lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=True),
    "mask of dot_product_attention": lambda q, k, v: jax.nn.dot_product_attention(
        q, k, v, mask=CAUSAL[None, None]
    ),
    "set to -inf": masked(lambda u: u.at[..., ~CAUSAL].set(-jnp.inf)),
}

# --- grouped and multi-query heads: q (B, T, 4, D), k and v (B, S, 2 or 1, D)


def by_repeating(repeat):
    def core(q, k, v):
        times = q.shape[2] // k.shape[2]
        return PLAIN["einsum"](q, repeat(k, times), repeat(v, times))

    return core


def by_broadcast(a, times):
    wide = jnp.broadcast_to(a[:, :, :, None], (*a.shape[:3], times, a.shape[3]))
    return wide.reshape(*a.shape[:2], -1, a.shape[3])


def by_groups(q, k, v):
    grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[3])
    w = jax.nn.softmax(jnp.einsum("btgrd,bsgd->bgrts", grouped, k) * 0.5)
    return jnp.einsum("bgrts,bsgd->btgrd", w, v).reshape(q.shape)


def by_vmap_over_groups(q, k, v):
    def head(q, k, v):
        return jax.nn.softmax(q @ k.T * 0.5) @ v

    group = jax.vmap(head, (1, None, None), 1)
    grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[3])
    return jax.vmap(jax.vmap(group, (1, 1, 1), 1))(grouped, k, v).reshape(q.shape)


GROUPED = {
    "repeat": by_repeating(lambda a, n: jnp.repeat(a, n, 2)),
    "broadcast": by_repeating(by_broadcast),
    "take": by_repeating(lambda a, n: a[:, :, np.arange(a.shape[2] * n) // n]),
    "einsum": by_groups,
    "vmap": by_vmap_over_groups,
    "dot_product_attention": jax.nn.dot_product_attention,
}
