"""Functions of parameters and an input, for what is computed of the parameters before a call."""

import jax
import jax.numpy as jnp
from jax import lax

from tests import networks
from tests.common import draw, layer_norm

DEPTH = 3


def perceptron(p, x):
    for w, b in zip(p["w"][:-1], p["b"][:-1], strict=True):
        x = jax.nn.relu(x @ w + b)
    return x @ p["w"][-1]


def convolutions(p, x):
    """Strides, groups, a BatchNorm after a convolution and one before, padded."""
    x = networks.conv(x, p["first"], padding=networks.SAME_3X3)
    x = jax.nn.relu(networks.batch_norm(p["norm"], x))
    x = lax.conv_general_dilated(
        networks.batch_norm(p["norm"], x),
        p["groups"],
        (2, 2),
        networks.SAME_3X3,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )
    return jax.nn.relu(x).mean((1, 2)) @ p["head"]


def block(p, x):
    y = jax.nn.relu(layer_norm(x) @ p["up"] + p["bias"])
    return x + y @ (p["down"] * p["scale"])


def written_out(p, x):
    for n in range(DEPTH):
        x = block(jax.tree.map(lambda a, n=n: a[n], p["blocks"]), x)
    return x @ p["head"]


def scanned(p, x, around=lambda block: block, **settings):
    step = around(block)
    x, _ = lax.scan(lambda x, q: (step(q, x), None), x, p["blocks"], **settings)
    return x @ p["head"]


def remat(p, x):
    return scanned(p, x, jax.checkpoint)


def backwards(p, x):
    return scanned(p, x, reverse=True, unroll=2)


def called(p, x):
    """One function, called for each block."""
    one = jax.jit(block)
    for n in range(DEPTH):
        x = one(jax.tree.map(lambda a, n=n: a[n], p["blocks"]), x)
    return x @ p["head"]


def recurrent(p, x):
    """The same weights in each iteration."""

    def cell(h, a):
        h = jax.nn.tanh(a @ p["in"] + h @ p["own"] + p["bias"])
        return h, h

    h, hs = lax.scan(cell, jnp.zeros((x.shape[1], 6)), x)
    return (h + hs.sum(0)) @ p["out"]


def nested(p, x):
    """Loops within loops, of weights that both slice."""

    def outer(x, q):
        x, _ = lax.scan(lambda x, w: (jax.nn.relu(x @ (w * p["scale"])), None), x, q)
        return x, None

    return lax.scan(outer, x, p["w"])[0]


def attention(p, x):
    q, k, v = (jnp.einsum("btd,dhe->bhte", x, w) for w in p["qkv"])
    a = jax.nn.softmax(jnp.einsum("bhie,bhje->bhij", q, k))
    return jnp.einsum("bhij,bhje,hec->bic", a, v, p["out"]).mean(1) @ p["head"]


def branches(p, x):
    x = x @ p["w"][0]
    x = lax.cond(x.sum() > 0, lambda x: x @ p["w"][1], lambda x: -x @ p["w"][1], jax.nn.relu(x))
    return x @ p["w"][2]


def factors(p, x):
    """Weights that are made of others: a sum with a product of thin ones, and a normalised one."""
    thin = p["w"] + p["a"] @ p["b"]
    normed = p["v"] / jnp.sqrt((p["v"] ** 2).sum(0))
    return jax.nn.relu(x @ thin) @ normed


_BLOCKS = {
    "blocks": {
        "up": draw(DEPTH, 6, 8),
        "bias": draw(DEPTH, 8),
        "down": draw(DEPTH, 8, 6),
        "scale": draw(DEPTH, 6, seed=1),
    },
    "head": draw(6, 3),
}
_NORM = {"mean": draw(4), "var": draw(4) ** 2, "scale": draw(4, seed=1), "bias": draw(4, seed=2)}

# name: function, parameters, input
NETWORKS = {
    "perceptron": (
        perceptron,
        {"w": [draw(6, 8), draw(8, 8), draw(8, 3)], "b": [draw(8), draw(8, seed=1), draw(3)]},
        draw(2, 6),
    ),
    "convolutions": (
        convolutions,
        {
            "first": draw(3, 3, 2, 4),
            "norm": {**_NORM, "eps": jnp.array(1e-3)},
            "groups": draw(3, 3, 2, 6),
            "head": draw(6, 3),
        },
        draw(2, 7, 7, 2),
    ),
    "written_out": (written_out, _BLOCKS, draw(2, 6)),
    "scanned": (scanned, _BLOCKS, draw(2, 6)),
    "remat": (remat, _BLOCKS, draw(2, 6)),
    "backwards": (backwards, _BLOCKS, draw(2, 6)),
    "called": (called, _BLOCKS, draw(2, 6)),
    "recurrent": (
        recurrent,
        {"in": draw(4, 6), "own": 0.4 * draw(6, 6), "bias": draw(6), "out": draw(6, 3)},
        draw(5, 2, 4),
    ),
    "nested": (nested, {"w": draw(2, 3, 6, 6), "scale": draw(6)}, draw(2, 6)),
    "attention": (
        attention,
        {
            "qkv": [draw(6, 2, 4, seed=n) for n in range(3)],
            "out": draw(2, 4, 6),
            "head": draw(6, 3),
        },
        draw(2, 5, 6),
    ),
    "branches": (branches, {"w": [draw(6, 6, seed=n) for n in range(3)]}, draw(2, 6)),
    "factors": (
        factors,
        {"w": draw(6, 8), "a": draw(6, 2), "b": draw(2, 8), "v": draw(8, 3)},
        draw(2, 6),
    ),
}
