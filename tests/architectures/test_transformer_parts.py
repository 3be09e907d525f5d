"""Around attention: gated MLPs, norms in any place, sparse routing; each in its spellings."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from tests.attention_networks import (
    RULES,
    SEED,
    WIDTH,
    assert_same,
    explained,
    kinds_of,
    sample,
    weights,
)
from tests.compare import assert_close
from tests.reference import dense_layer, epsilon_rule

# --- gated MLPs

GATE, UP, DOWN = weights(WIDTH, 8), weights(WIDTH, 8, seed=1), weights(8, WIDTH, seed=2)
BOTH = jnp.concatenate([GATE, UP], 1)
GATES = {
    "SwiGLU": jax.nn.silu,
    "GeGLU": jax.nn.gelu,
    "GLU": jax.nn.sigmoid,
    "ReGLU": jax.nn.relu,
}


def gated(f):
    def fused(x):
        h = x @ BOTH
        return (f(h[..., :8]) * h[..., 8:]) @ DOWN

    def split(x):
        g, u = jnp.split(x @ BOTH, 2, -1)
        return (u * f(g)) @ DOWN

    def stacked(x):
        g, u = jnp.einsum("btm,nmh->nbth", x, jnp.stack([GATE, UP]))
        return jnp.einsum("bth,hm->btm", f(g) * u, DOWN)

    return {
        "in order": lambda x: (f(x @ GATE) * (x @ UP)) @ DOWN,
        "turned": lambda x: ((x @ UP) * f(x @ GATE)) @ DOWN,
        "fused": fused,
        "split": split,
        "stacked": stacked,
        "one einsum": lambda x: jnp.einsum("bth,bth,hm->btm", f(x @ GATE), x @ UP, DOWN),
    }


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", GATES)
def test_gated_mlps(name, rule):
    spellings = gated(GATES[name])
    found = explained(spellings, RULES[rule])
    assert_same(found)
    for fn in spellings.values():
        assert kinds_of(fn).count("product") == 1
    # By hand: what the product receives goes to both factors, or to the signal alone.
    x, half = sample(), 0.5 if rule == "attn" else 0.0
    g, u = np.asarray(x @ GATE), np.asarray(x @ UP)
    hidden = np.asarray(GATES[name](g)) * u
    back = functools.partial(_dense_back, seed=None)
    received = back(DOWN, hidden, SEED * np.asarray(found["fused"][1]))
    expected = back(GATE, x, half * received) + back(UP, x, (1 - half) * received)
    assert_close(found["in order"][0], expected)


def _dense_back(kernel, x, relevance, seed):
    layer = dense_layer(kernel)
    rows = zip(x.reshape(-1, x.shape[-1]), relevance.reshape(-1, relevance.shape[-1]), strict=True)
    return np.stack([epsilon_rule(layer, a, r, epsilon=0.0) for a, r in rows]).reshape(x.shape)


# --- norms inside a block


def centred(x):
    return x - x.mean(-1, keepdims=True)


def expanded(x):
    mean = x.mean(-1, keepdims=True)
    factor = lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * factor + -mean * factor


def one_pass(x):
    mean, square = x.mean(-1, keepdims=True), (x * x).mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(square - mean * mean + 1e-6)


def by_sums(x):
    c = x - x.sum(-1, keepdims=True) / WIDTH
    return c / jnp.sqrt((c * c).sum(-1, keepdims=True) / WIDTH + 1e-6)


LAYER_NORMS = {
    "two passes": lambda x: centred(x) / jnp.sqrt((centred(x) ** 2).mean(-1, keepdims=True) + 1e-6),
    "one pass": one_pass,
    "by sums": by_sums,
    "by var": lambda x: centred(x) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-6),
    "by einsum": lambda x: (lambda c: c / jnp.sqrt(jnp.vecdot(c, c) / WIDTH + 1e-6)[..., None])(
        centred(x)
    ),
    "expanded": expanded,
    "Linen": lambda x: nn.LayerNorm(use_bias=False, use_scale=False, dtype=jnp.float64).apply(
        {}, x
    ),
    "standardize": lambda x: jax.nn.standardize(x, epsilon=1e-6),
}
RMS_NORMS = {
    "rsqrt": lambda x: x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6),
    "division": lambda x: x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6),
    "power": lambda x: x * ((x**2).sum(-1, keepdims=True) / WIDTH + 1e-6) ** -0.5,
    "L2 times root": lambda x: (
        x / jnp.sqrt((x * x).sum(-1, keepdims=True) + WIDTH * 1e-6) * np.sqrt(WIDTH)
    ),
    "Linen": lambda x: nn.RMSNorm(use_scale=False, dtype=jnp.float64).apply({}, x),
    "NNX": nnx.RMSNorm(WIDTH, use_scale=False, dtype=jnp.float64, rngs=nnx.Rngs(0)),
}
SCALE, SHIFT = weights(1, WIDTH)[0], weights(1, WIDTH, seed=1)[0]
IN, OUT = weights(WIDTH, 8, seed=3), weights(8, WIDTH, seed=4)


def mlp(x):
    return jax.nn.gelu(x @ IN + 0.1) @ OUT


BLOCKS = {
    "norm before": lambda norm, x: x + mlp(norm(x) * SCALE + SHIFT),
    "norm after": lambda norm, x: norm(x + mlp(x)) * SCALE + SHIFT,
    "DeepNorm": lambda norm, x: norm(2.5 * x + mlp(x)) * SCALE + SHIFT,
    "DeepNorm, turned": lambda norm, x: norm(mlp(x) + x * 2.5) * SCALE + SHIFT,
    "norm on both sides": lambda norm, x: x + norm(mlp(norm(x))) * SCALE,
}


@pytest.mark.parametrize("norms", [LAYER_NORMS, RMS_NORMS], ids=["layer", "RMS"])
@pytest.mark.parametrize("block", BLOCKS)
def test_any_spelling_of_a_norm_in_any_place(block, norms):
    spellings = {name: functools.partial(BLOCKS[block], norm) for name, norm in norms.items()}
    for fn in spellings.values():
        assert kinds_of(fn).count("norm") == (2 if block == "norm on both sides" else 1)
        assert not {"product", "reduce", "avg_pool"} & set(kinds_of(fn))
    assert_same(explained(spellings, RULES["attn"]))


def test_deepnorm_in_either_order():
    for norms in (LAYER_NORMS, RMS_NORMS):
        norm = next(iter(norms.values()))
        orders = ("DeepNorm", "DeepNorm, turned")
        assert_same(
            explained({n: functools.partial(BLOCKS[n], norm) for n in orders}, RULES["attn"])
        )


# --- sparse routing: the router's weights are gates

ROUTER, FIRST, SECOND = weights(WIDTH, 4), weights(4, WIDTH, 7), weights(4, 7, WIDTH, seed=1)


def experts(x):
    hidden = jax.nn.relu(jnp.einsum("btm,emh->bteh", x, FIRST))
    return jnp.einsum("bteh,ehm->btem", hidden, SECOND)


def chosen(x):
    top, which = lax.top_k(x @ ROUTER, 2)
    return jax.nn.softmax(top), which


def by_taking(x):
    g, which = chosen(x)
    return (g[..., None] * jnp.take_along_axis(experts(x), which[..., None], 2)).sum(2)


def by_one_hot(x):
    g, which = chosen(x)
    spread = (jax.nn.one_hot(which, 4) * g[..., None]).sum(2)
    return jnp.einsum("bte,btem->btm", spread, experts(x))


def by_scatter(x):
    g, which = chosen(x)
    b, t = np.indices(x.shape[:2])
    spread = jnp.zeros((*x.shape[:2], 4)).at[b[..., None], t[..., None], which].set(g)
    return jnp.einsum("bte,btem->btm", spread, experts(x))


def by_mask(x):
    u = x @ ROUTER
    low = lax.top_k(u, 2)[0][..., -1:]
    return jnp.einsum("bte,btem->btm", jax.nn.softmax(jnp.where(u >= low, u, -jnp.inf)), experts(x))


def by_taking_weights(x):
    g, which = chosen(x)
    hidden = jax.nn.relu(jnp.einsum("btm,btkmh->btkh", x, FIRST[which]))
    return jnp.einsum("btk,btkh,btkhm->btm", g, hidden, SECOND[which])


def by_sorting(x):
    u = x @ ROUTER
    which = jnp.argsort(-u, axis=-1)[..., :2]
    g = jax.nn.softmax(jnp.take_along_axis(u, which, -1))
    return (g[..., None] * jnp.take_along_axis(experts(x), which[..., None], 2)).sum(2)


def by_renormalising(x):
    g, which = lax.top_k(jax.nn.softmax(x @ ROUTER), 2)
    g = g / g.sum(-1, keepdims=True)
    return (g[..., None] * jnp.take_along_axis(experts(x), which[..., None], 2)).sum(2)


def by_scaling(x):
    return by_taking_scaled(x, 2.5) / 2.5


def by_taking_scaled(x, scale):
    g, which = chosen(x)
    g = g * scale
    return (g[..., None] * jnp.take_along_axis(experts(x), which[..., None], 2)).sum(2)


ROUTINGS = (by_taking, by_one_hot, by_scatter, by_mask, by_taking_weights, by_sorting, by_scaling)


def test_routing_under_attn():
    assert_same(explained({fn.__name__: fn for fn in ROUTINGS}, RULES["attn"]))


def test_the_routers_weights_are_gates():
    found = explained({fn.__name__: fn for fn in (*ROUTINGS, by_renormalising)}, RULES["cp"])
    assert_same(found)
    relevance, value = found["by_taking"]
    np.testing.assert_allclose(relevance.sum(), np.sum(SEED * value), rtol=1e-10)
    # By hand: the experts' outputs, weighted by constants.
    g, which = chosen(sample())

    def held(x):
        return (g[..., None] * jnp.take_along_axis(experts(x), which[..., None], 2)).sum(2)

    assert_close(relevance, explained({"held": held}, RULES["attn"])["held"][0])


def test_one_expert_by_argmax():
    def switch(x):
        g = jax.nn.softmax(x @ ROUTER)
        best = jnp.take_along_axis(experts(x), g.argmax(-1)[..., None, None], 2)[:, :, 0]
        return g.max(-1, keepdims=True) * best

    relevance, value = explained({"switch": switch}, RULES["cp"])["switch"]
    np.testing.assert_allclose(relevance.sum(), np.sum(SEED * value), rtol=1e-10)
