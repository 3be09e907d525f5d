"""Small networks with the placement of their weights on a mesh with axes `data` and `model`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P

BATCH, WIDTH, HIDDEN, CLASSES, HEADS = 8, 16, 32, 8, 8
COLUMNS, ROWS = P(None, "model"), P("model", None)


def draw(*shape: int, seed: int = 0, scale: float | None = None) -> np.ndarray:
    """Normal numbers; by default so scaled that a product with them keeps its size."""
    scale = shape[-2] ** -0.5 if scale is None else scale
    return scale * np.random.default_rng([seed, *shape]).normal(size=shape)


def mlp():
    """Four dense layers with biases, split by columns and rows in turn."""
    shapes = [(WIDTH, HIDDEN), (HIDDEN, WIDTH), (WIDTH, HIDDEN), (HIDDEN, CLASSES)]
    params = {f"w{i}": draw(*shape, seed=i) for i, shape in enumerate(shapes)}
    params |= {f"b{i}": draw(1, shape[1], seed=9 + i)[0] for i, shape in enumerate(shapes)}
    places = {f"w{i}": (COLUMNS, ROWS)[i % 2] for i in range(4)}
    places |= {f"b{i}": (P("model"), P())[i % 2] for i in range(4)}

    def fn(params, x):
        for i in range(3):
            x = jax.nn.relu(x @ params[f"w{i}"] + params[f"b{i}"])
        return x @ params["w3"] + params["b3"]

    return fn, params, places, draw(BATCH, WIDTH, seed=7, scale=1.0)


def cnn():
    """Two convolutions, split by output and input channels, pooling and a dense layer."""
    params = {
        "first": draw(3, 3, 2, 16, scale=0.3),
        "bias": draw(1, 16)[0],
        "second": draw(3, 3, 16, 8, scale=0.1),
        "head": draw(8, CLASSES),
    }
    places = {
        "first": P(None, None, None, "model"),
        "bias": P("model"),
        "second": P(None, None, "model", None),
        "head": P(),
    }

    def conv(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    def fn(params, x):
        x = jax.nn.relu(conv(x, params["first"]) + params["bias"])
        x = jax.nn.relu(conv(x, params["second"])).mean((1, 2))
        return x @ params["head"]

    return fn, params, places, draw(BATCH, 6, 6, 2, seed=7, scale=1.0)


def transformer():
    """Two blocks: attention split by heads, then a gated dense pair, each behind a norm."""
    params = {
        "q": draw(2, WIDTH, HEADS, 4, scale=WIDTH**-0.5),
        "k": draw(2, WIDTH, HEADS, 4, seed=1, scale=WIDTH**-0.5),
        "v": draw(2, WIDTH, HEADS, 4, seed=2, scale=WIDTH**-0.5),
        "o": draw(2, HEADS, 4, WIDTH, seed=3, scale=HIDDEN**-0.5),
        "gate": draw(2, WIDTH, HIDDEN, seed=4),
        "up": draw(2, WIDTH, HIDDEN, seed=5),
        "down": draw(2, HIDDEN, WIDTH, seed=6),
        "head": draw(WIDTH, CLASSES),
    }
    heads = P(None, None, "model", None)
    places = {
        **dict.fromkeys("qkv", heads),
        "o": P(None, "model", None, None),
        "gate": P(None, None, "model"),
        "up": P(None, None, "model"),
        "down": P(None, "model", None),
        "head": P(),
    }

    def norm(x):
        return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)

    def block(x, p):
        h = norm(x)
        q, k, v = (jnp.einsum("btd,dhe->bthe", h, p[name]) for name in "qkv")
        weights = jax.nn.softmax(jnp.einsum("bqhe,bkhe->bhqk", q, k) / 2.0)
        x = x + jnp.einsum("bhqk,bkhe,hed->bqd", weights, v, p["o"])
        h = norm(x)
        return x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"], None

    def fn(params, x):
        blocks = {name: value for name, value in params.items() if name != "head"}
        x, _ = lax.scan(jax.checkpoint(block), x, blocks)
        return norm(x).mean(1) @ params["head"]

    return fn, params, places, draw(BATCH, 5, WIDTH, seed=7, scale=1.0)


NETWORKS = {"mlp": mlp, "cnn": cnn, "transformer": transformer}
