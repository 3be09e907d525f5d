"""Eight small networks whose compiled programs are counted; shapes alone, nothing is allocated."""

import jax
import jax.numpy as jnp
from jax import lax

from tests import networks
from tests.common import layer_norm

WIDTH, CLASSES, DEPTH = 64, 10, 3


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def perceptron(p, x):
    for w in p["w"][:-1]:
        x = jax.nn.relu(x @ w + p["b"])
    return x @ p["w"][-1]


def convolutional(p, x):
    for kernel in p["kernels"]:
        x = jax.nn.relu(networks.conv(x, kernel, padding=networks.SAME_3X3) + p["b"])
        x = networks.max_pool(x, 2)
    return x.reshape(len(x), -1) @ p["head"]


def residual(p, x):
    """Convolutions with a BatchNorm each, in blocks of two with a skip."""

    def conv_norm(q, x):
        return networks.batch_norm(q["norm"], networks.conv(x, q["w"], padding=networks.SAME_3X3))

    x = jax.nn.relu(conv_norm(p["stem"], x))
    for one, two in p["blocks"]:
        x = jax.nn.relu(x + conv_norm(two, jax.nn.relu(conv_norm(one, x))))
    return x.mean((1, 2)) @ p["head"]


def block(p, x):
    """Self-attention and two dense layers, each behind a norm."""
    h = layer_norm(x)
    q, k, v = (jnp.einsum("btd,dhe->bhte", h, w) for w in p["qkv"])
    a = jax.nn.softmax(jnp.einsum("bhie,bhje->bhij", q, k) / 4.0)
    x = x + jnp.einsum("bhij,bhje,hec->bic", a, v, p["out"])
    return x + jax.nn.gelu(layer_norm(x) @ p["up"]) @ p["down"]


def transformer(p, x, around=lambda block: block):
    for q in p["blocks"]:
        x = around(block)(q, x)
    return layer_norm(x).mean(1) @ p["head"]


def recomputed(p, x):
    return transformer(p, x, jax.checkpoint)


def scanned(p, x):
    x, _ = lax.scan(lambda x, q: (jax.checkpoint(block)(q, x), None), x, p["blocks"])
    return layer_norm(x).mean(1) @ p["head"]


def gated(p, x):
    """The dense half of a LLaMA block: a product of two, one of them through SiLU."""
    for q in p["blocks"]:
        h = x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)
        x = x + (jax.nn.silu(h @ q["gate"]) * (h @ q["up"])) @ q["down"]
    return x.mean(1) @ p["head"]


def recurrent(p, x):
    """An LSTM over the first axis."""

    def cell(state, a):
        c, h = state
        i, f, g, o = jnp.split(a @ p["in"] + h @ p["own"] + p["b"], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (c, jax.nn.sigmoid(o) * jnp.tanh(c)), None

    zeros = jnp.zeros((x.shape[1], WIDTH))
    return lax.scan(cell, (zeros, zeros), x)[0][1] @ p["head"]


_HEAD = {"head": shape(WIDTH, CLASSES)}
_NORM = {name: shape(16) for name in ("mean", "var", "scale", "bias")} | {"eps": shape()}
_BLOCK = {
    "qkv": [shape(WIDTH, 4, 16)] * 3,
    "out": shape(4, 16, WIDTH),
    "up": shape(WIDTH, 4 * WIDTH),
    "down": shape(4 * WIDTH, WIDTH),
}
_GATED = {"gate": shape(WIDTH, 128), "up": shape(WIDTH, 128), "down": shape(128, WIDTH)}
_CONV = {"w": shape(3, 3, 16, 16), "norm": _NORM}
_TOKENS = shape(2, 24, WIDTH)

# name: function, parameters, input
NETWORKS = {
    "perceptron": (
        perceptron,
        {"w": [*[shape(WIDTH, WIDTH)] * DEPTH, shape(WIDTH, CLASSES)], "b": shape(WIDTH)},
        shape(8, WIDTH),
    ),
    "convolutional": (
        convolutional,
        {
            "kernels": [shape(3, 3, 3, 16), *[shape(3, 3, 16, 16)] * 2],
            "b": shape(16),
            "head": shape(64, CLASSES),
        },
        shape(2, 16, 16, 3),
    ),
    "residual": (
        residual,
        {
            "stem": {"w": shape(3, 3, 3, 16), "norm": _NORM},
            "blocks": [(_CONV, _CONV)] * 2,
            "head": shape(16, CLASSES),
        },
        shape(2, 12, 12, 3),
    ),
    "transformer": (transformer, {"blocks": [_BLOCK] * DEPTH, **_HEAD}, _TOKENS),
    "recomputed": (recomputed, {"blocks": [_BLOCK] * DEPTH, **_HEAD}, _TOKENS),
    "scanned": (
        scanned,
        {"blocks": jax.tree.map(lambda a: shape(DEPTH, *a.shape), _BLOCK), **_HEAD},
        _TOKENS,
    ),
    "gated": (gated, {"blocks": [_GATED] * DEPTH, **_HEAD}, _TOKENS),
    "recurrent": (
        recurrent,
        {
            "in": shape(WIDTH, 4 * WIDTH),
            "own": shape(WIDTH, 4 * WIDTH),
            "b": shape(4 * WIDTH),
            **_HEAD,
        },
        shape(12, 2, WIDTH),
    ),
}
